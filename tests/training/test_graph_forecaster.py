import math
from types import SimpleNamespace

import pytest
import torch

from diffusion_lab.denoisers import edm_coefficients
from diffusion_lab.models import Architecture, DiffusionModelEncProcDec, DiffusionTendModelEncProcDec
from diffusion_lab.noise import MemberNoise
from diffusion_lab.objectives import DiffusionObjective, MSELoss
from diffusion_lab.sampling import PRESETS
from diffusion_lab.training.forecaster import GraphForecaster, GraphTendForecaster

CELLS, MEMBERS = 288, 3
MEAN, STDEV = torch.tensor([0.1]), torch.tensor([0.5])
TWO_STEPS = PRESETS["guide"].override({"num_steps": 2})


@pytest.fixture
def make(toy_graph, tiny):
    """A task of one prognostic variable, one forcing and one diagnostic variable; what it logs is kept."""

    def make(tendency, **options):
        scales = {"tendency_mean": MEAN, "tendency_stdev": STDEV} if tendency else {}
        cls = DiffusionTendModelEncProcDec if tendency else DiffusionModelEncProcDec
        task = (GraphTendForecaster if tendency else GraphForecaster)(
            cls(toy_graph, 2, 2, 1, Architecture(**tiny), **scales),
            DiffusionObjective(),
            MSELoss(toy_graph["data"].area_weight, [1.0, 2.0]),
            ["t850", "tp"],
            torch.tensor([10.0, 3.0]),
            settings=TWO_STEPS,
            validation_members=MEMBERS,
            **options,
        )
        task.logged = {}
        task.log = lambda name, value, **_: task.logged.update({name: value.item()})
        task._trainer = SimpleNamespace(global_step=0, max_steps=1000, global_rank=0, world_size=1)
        return task

    return make


@pytest.fixture
def batch():
    return torch.randn(3, 2, 1, CELLS, 2), torch.randn(3, 1, 1, CELLS, 2)


@pytest.mark.parametrize("tendency", [False, True])
def test_loss_of_a_step_is_that_of_the_corrupted_target(make, perturb, batch, tendency):
    task, (x, state) = make(tendency, seed=4), batch
    task._trainer.global_step = 7
    perturb(task.model)
    result = task.training_step(batch, 0)
    target = state.clone()
    if tendency:
        target[..., :1] = (state[..., :1] - x[:, -1:, ..., :1] - 0.1) / 0.5
    y, sigma = task.objective.corrupt(target, task._generators(3))
    error = (task.model(x, y, sigma) - target) ** 2 * torch.tensor([1.0, 2.0]) * (1 + sigma**-2)
    area = task.loss.node_weights[:, None] / 2
    expected = (error * area).sum((1, 3, 4))
    torch.testing.assert_close(result["sample_loss"], expected)
    torch.testing.assert_close(result["loss"], expected.mean())
    torch.testing.assert_close(result["sigma"], sigma.flatten(1))
    assert task.logged == {"train/loss": pytest.approx(expected.mean().item(), rel=1e-5)}


def test_draws_follow_seed_and_step_alone(make, batch):
    def levels(seed, step):
        task = make(True, seed=seed)
        task._trainer.global_step = step
        torch.randn(step + 1)  # whatever else was drawn
        return task.training_step(batch, 0)["sigma"]

    assert torch.equal(levels(1, 5), levels(1, 5))
    assert not (levels(1, 5) == levels(1, 6)).any()
    assert not (levels(1, 5) == levels(2, 5)).any()


def test_a_sample_draws_the_same_on_any_number_of_devices(make, batch):
    x, state = batch
    task = make(False)
    together = task.training_step((torch.cat([x, x]), torch.cat([state, state])), 0)
    task._trainer.global_rank = 1
    second = task.training_step((x, state), 0)
    assert torch.equal(second["sigma"], together["sigma"][3:])
    torch.testing.assert_close(second["sample_loss"], together["sample_loss"][3:])


def test_validation_scores_an_untrained_model_by_hand(make, heun_factor):
    """F = 0: the sampled target is a known factor times the noise, so every score can be computed."""
    task = make(True, seed=9)
    starts = [(torch.randn(1, 2, 1, CELLS, 2), torch.randn(1, 1, 1, CELLS, 2)) for _ in range(2)]
    for i, start in enumerate(starts):
        task.validation_step(start, i)
    task.on_validation_epoch_end()

    factor = heun_factor([100.0, 0.02, 0.0])
    weights = task.loss.node_weights.double()
    crps, squared, variance, absolute, persistence = ([] for _ in range(5))
    for i, (x, state) in enumerate(starts):
        noise = MemberNoise(9).at(start=i, lead=1, members=range(MEMBERS), shape=(1, CELLS, 2))(0)
        target = factor * noise[0, 0].double()
        forecast = target.clone()
        forecast[..., 0] = target[..., 0] * 0.5 + 0.1 + x[0, -1, 0, :, 0]
        truth = state[0, 0, 0].double()
        spread = (forecast[:, None] - forecast[None]).abs().sum((0, 1)) / (2 * MEMBERS * (MEMBERS - 1))
        crps.append(weights @ ((forecast - truth).abs().mean(0) - spread))
        squared.append(weights @ (forecast.mean(0) - truth) ** 2)
        variance.append(weights @ forecast.var(0))
        error = (x[0, -1, 0, :, 0] - state[0, 0, 0, :, 0]).double()
        absolute.append(weights @ error.abs())
        persistence.append(weights @ error**2)
    crps, squared, variance, absolute, persistence = (
        torch.stack(parts).mean(0) for parts in (crps, squared, variance, absolute, persistence)
    )
    ratio = ((MEMBERS + 1) / MEMBERS * variance / squared).sqrt()
    expected = {
        "val/t850/fair_crps": 10 * crps[0],
        "val/tp/fair_crps": 3 * crps[1],
        "val/t850/rmse": 10 * squared[0].sqrt(),
        "val/tp/rmse": 3 * squared[1].sqrt(),
        "val/t850/spread_skill": ratio[0],
        "val/tp/spread_skill": ratio[1],
        "val/t850/crps_over_persistence": crps[0] / absolute,
        "val/t850/rmse_over_persistence": (squared[0] / persistence).sqrt(),
        "val/crps_over_persistence": crps[0] / absolute,
        "val/spread_skill": ratio.mean(),
    }
    assert task.logged == {name: pytest.approx(float(value), rel=1e-4) for name, value in expected.items()}


def test_each_validation_forgets_the_one_before(make):
    task, logs = make(False), []
    truth = torch.randn(1, 1, 1, CELLS, 2)
    for scale in (1, 100, 1):
        task.validation_step((torch.ones(1, 2, 1, CELLS, 2), scale * truth), 0)
        task.on_validation_epoch_end()
        logs.append(dict(task.logged))
    assert logs[0] == logs[2] != logs[1]


def test_learning_rate_by_hand(make):
    task = make(False, learning_rate=2.0, warmup_steps=4)
    task._trainer.max_steps = 24
    parts = task.configure_optimizers()
    assert parts["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(25):
        rates.append(parts["lr_scheduler"]["scheduler"].get_last_lr()[0])
        parts["optimizer"].step()
        parts["lr_scheduler"]["scheduler"].step()
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[9] == pytest.approx(1 + math.sqrt(0.5))  # a quarter of the way down the cosine
    assert rates[14] == pytest.approx(1.0)
    assert rates[24] == pytest.approx(0.0, abs=1e-12)


def test_weight_decay_leaves_biases_and_norms_alone(make):
    task = make(False, weight_decay=0.3)
    decayed, others = task.configure_optimizers()["optimizer"].param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in others["params"]} == {1}
    assert len(decayed["params"]) + len(others["params"]) == len(list(task.model.parameters()))


def test_only_tendency_models_train_as_tendencies(make):
    state_task = make(False)
    with pytest.raises(TypeError, match="DiffusionTendModelEncProcDec, got DiffusionModelEncProcDec"):
        GraphTendForecaster(
            state_task.model, state_task.objective, state_task.loss, ["a", "b"], torch.ones(2)
        )


def test_default_settings_are_the_published_schedule():
    assert edm_coefficients(torch.tensor(100.0), 1.0)[0].item() == pytest.approx(1 / 10_001)
    assert TWO_STEPS.sigmas().tolist() == pytest.approx([100.0, 0.02, 0.0])
