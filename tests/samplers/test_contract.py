"""What all samplers share: checks at the call, counts, purity, bounded memory."""

import gc
import inspect
import subprocess
import sys
import weakref

import pytest
import torch

from diffusion_lab.noise import MemberNoise, noise_like
from diffusion_lab.samplers import SAMPLERS, Step, heun, sample
from diffusion_lab.schedules import karras

LEVELS = karras(8, 80.0, 0.02)
TWO_CALLS = {"heun", "dpmpp_2s"}
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def denoiser(y, sigma):
    return y / (1 + sigma**2)


def options(name, y=None, noise=None):
    """Noise (of y's shape, or the one given) for samplers that take it, and churn for those that churn."""
    parameters = inspect.signature(SAMPLERS[name]).parameters
    noise = noise or noise_like(y, torch.Generator().manual_seed(0))
    given = {"S_churn": 2.0, "noise": noise}
    return {key: value for key, value in given.items() if key in parameters}


@every_sampler
def test_steps_tell_where_they_are(name):
    y = torch.ones(2, 3)
    steps = list(SAMPLERS[name](denoiser, y, LEVELS, **options(name, y)))
    assert [step.index for step in steps] == list(range(8))
    assert [step.sigma for step in steps] == LEVELS[1:].tolist()
    calls = 2 if name in TWO_CALLS else 1
    assert [step.nfe for step in steps] == [calls * i for i in range(1, 8)] + [calls * 8 - (calls - 1)]
    assert all(step.state.dtype == torch.float64 and step.state.shape == y.shape for step in steps)
    assert torch.equal(steps[-1].state, steps[-1].denoised)  # a step to σ = 0 ends in D


@every_sampler
def test_inputs_are_never_changed(name):
    y = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fixed, handed_out, levels = torch.ones_like(y), [], LEVELS.clone()

    def recording(y, sigma):
        answer = denoiser(y, sigma)
        handed_out.append((y, y.clone(), answer, answer.clone()))
        return answer

    before = y.clone()
    steps = SAMPLERS[name](recording, y, levels, **options(name, noise=lambda draw: fixed))
    states = [(step.state, step.state.clone()) for step in steps]
    assert torch.equal(y, before)
    assert torch.equal(levels, LEVELS)
    assert torch.equal(fixed, torch.ones_like(y))
    assert all(torch.equal(a, b) and torch.equal(c, d) for a, b, c, d in handed_out)
    assert all(torch.equal(state, copy) for state, copy in states)


@every_sampler
def test_the_denoiser_gets_float64_and_a_level_without_dimensions(name):
    seen = []

    def recording(y, sigma):
        seen.append((y.dtype, sigma.dtype, sigma.ndim, sigma.device.type))
        return denoiser(y, sigma).float()  # an answer in another dtype is taken back to float64

    y = torch.ones(3)
    assert sample(SAMPLERS[name], recording, y, LEVELS, **options(name, y)).dtype == torch.float64
    assert set(seen) == {(torch.float64, torch.float64, 0, "cpu")}


@every_sampler
def test_mistakes_are_told_at_the_call(name):
    sampler, y = SAMPLERS[name], torch.ones(3)
    with pytest.raises(TypeError, match="S_chum"):
        sampler(denoiser, y, LEVELS, S_chum=1.0)
    with pytest.raises(ValueError, match="strictly decrease"):
        sampler(denoiser, y, LEVELS.flip(0)[1:])
    with pytest.raises(ValueError, match="one-dimensional"):
        sampler(denoiser, y, LEVELS.reshape(3, 3))
    with pytest.raises(ValueError, match="at least two levels"):
        sampler(denoiser, y, [80.0])
    with pytest.raises(TypeError, match="floating-point"):
        sampler(denoiser, torch.ones(3, dtype=torch.int64), LEVELS)


@every_sampler
def test_nan_names_step_and_level(name):
    bad_level = LEVELS[5].item()
    broken = lambda y, sigma: torch.where(sigma == bad_level, torch.nan, 1.0) * denoiser(y, sigma)  # noqa: E731
    step = 4 if name == "heun" else 5  # Heun's second call of step 4 is already at level 5
    y = torch.ones(3)
    with pytest.raises(FloatingPointError, match=rf"in step {step} at σ = {bad_level:.6g}"):
        sample(SAMPLERS[name], broken, y, LEVELS, **({} if name in TWO_CALLS else options(name, y)))


def test_a_denoiser_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        sample(heun, lambda y, sigma: y + torch.ones(3, 1), torch.ones(3), LEVELS)


@every_sampler
def test_stopping_early_frees_everything(name):
    class Big:
        def __call__(self, y, sigma):
            return denoiser(y, sigma)

    model, y = Big(), torch.ones(3)
    steps = SAMPLERS[name](model, y, LEVELS, **options(name, y))
    step = next(steps)
    watched = [weakref.ref(model), weakref.ref(step.state), weakref.ref(step.denoised)]
    del model, step, steps
    assert [ref() for ref in watched] == [None, None, None]  # at once, without the garbage collector


@every_sampler
def test_no_more_than_a_few_states_are_alive(name):
    y = torch.ones(3, 41)
    gc.collect()
    alive, states = [], []
    for step in SAMPLERS[name](denoiser, y, karras(40, 80.0, 0.02), **options(name, y)):
        states += [weakref.ref(step.state), weakref.ref(step.denoised)]
        alive.append(sum(ref() is not None for ref in states))
    assert max(alive) == max(alive[:6]) <= 8


@every_sampler
def test_no_gradients_are_recorded(name):
    weight, y = torch.ones((), requires_grad=True), torch.ones(3, requires_grad=True)
    clean = sample(
        SAMPLERS[name], lambda y, sigma: weight * denoiser(y, sigma), y, LEVELS, **options(name, y)
    )
    assert not clean.requires_grad


@every_sampler
def test_nothing_is_read_back_from_the_device_inside_the_loop(name):
    # Meta tensors have no values: any read, which would stall an accelerator, is an error. The last step is
    # left out: there the search for NaN reads its result.
    y = torch.ones(1, 1, 2, 3, 4, device="meta")
    steps = SAMPLERS[name](denoiser, y, LEVELS, **options(name, noise=lambda draw: y))
    for _ in range(7):
        assert next(steps).state.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_sampler
def test_no_synchronisation_on_a_gpu(name):
    y = torch.ones(1, 1, 2, 3, 4, device="cuda")
    steps = SAMPLERS[name](denoiser, y, LEVELS, **options(name, noise=lambda draw: y))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(7):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_sampler
def test_members_sampled_apart_equal_members_sampled_together(name):
    noise = MemberNoise(1)
    together = noise.at(0, 1, range(4), (1, 20, 2))
    apart = [noise.at(0, 1, [member], (1, 20, 2)) for member in range(4)]

    def run(draws):
        given = options(name, noise=draws)
        return sample(SAMPLERS[name], lambda y, sigma: torch.tanh(y), 80 * draws(0), LEVELS, **given)

    assert torch.equal(run(together), torch.cat([run(draws) for draws in apart], dim=2))


def test_the_core_imports_nothing_heavier_than_torch():
    code = (
        "import sys, torch; before = set(sys.modules); "
        "import diffusion_lab.samplers, diffusion_lab.analytic, diffusion_lab.noise; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before if not name.startswith('_')})"
    )
    added = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "scipy",
        "matplotlib",
        "lightning",
        "pytorch_lightning",
        "torch_geometric",
        "xarray",
        "zarr",
        "IPython",
    }
    assert not heavy & set(added)


def test_steps_are_frozen():
    step = next(heun(denoiser, torch.ones(3), LEVELS))
    assert isinstance(step, Step)
    with pytest.raises(AttributeError):
        step.sigma = 1.0
