"""Preconditioning against worked-out numbers; wrappers against what they promise."""

import math

import pytest
import torch

from diffusion_lab.analytic import Gaussian
from diffusion_lab.denoisers import Autoguidance, CallCounter, EDMDenoiser, ErrorInjector, edm_coefficients
from diffusion_lab.samplers import heun, sample
from diffusion_lab.schedules import karras


def scalar(sigma):
    return torch.tensor(sigma, dtype=torch.float64)


@pytest.mark.parametrize(
    ("sigma", "sigma_data", "expected"),
    [
        (1.0, 1.0, (0.5, 1 / math.sqrt(2), 1 / math.sqrt(2), 0.0)),
        (3.0, 0.5, (0.25 / 9.25, 1.5 / 3.0413812651491097, 1 / 3.0413812651491097, 0.27465307216702745)),
    ],
)
def test_coefficients(sigma, sigma_data, expected):
    assert [c.item() for c in edm_coefficients(scalar(sigma), sigma_data)] == pytest.approx(
        expected, rel=1e-12
    )


def test_coefficients_make_input_and_target_unit_variance():
    sigma = torch.logspace(-3, 2, 11, dtype=torch.float64)
    c_skip, c_out, c_in, _ = edm_coefficients(sigma, 0.5)
    assert torch.allclose(c_in**2 * (0.25 + sigma**2), torch.ones_like(sigma))
    # The target (clean − c_skip·y)/c_out of unit variance (their Eq. 115), clean ~ N(0, σ_data²).
    assert torch.allclose(
        ((1 - c_skip) ** 2 * 0.25 + c_skip**2 * sigma**2) / c_out**2, torch.ones_like(sigma)
    )


def test_a_silent_network_is_the_exact_denoiser_of_unit_gaussian_data():
    y = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoiser = EDMDenoiser(lambda x, c_noise: torch.zeros_like(x))
    assert torch.allclose(denoiser(y, scalar(2.0)), y / 5)


def test_the_network_sees_its_dtype_and_precision_is_kept_around_it():
    seen = []

    def network(x, c_noise):
        seen.append((x, c_noise))
        return x

    y = torch.randn(1, 1, 2, 3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoised = EDMDenoiser(network, sigma_data=1.0)(y, scalar(1e-6))
    x, c_noise = seen[0]
    assert x.dtype == c_noise.dtype == torch.float32
    assert c_noise.item() == pytest.approx(math.log(1e-6) / 4)
    assert denoised.dtype == torch.float64
    # D = y + σ·F to first order: float32 would lose it all at this level.
    assert torch.allclose((denoised - y) / 1e-6, y, atol=1e-5)


def test_levels_by_member_equal_one_member_at_a_time():
    y = torch.randn(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 1.0, 10.0, 0.5, 5.0, 50.0]).reshape(2, 1, 3, 1, 1)
    denoiser = EDMDenoiser(lambda x, c_noise: x.tanh() + c_noise, sigma_data=0.7)
    together = denoiser(y, sigma)
    for b in range(2):
        for e in range(3):
            alone = denoiser(y[b : b + 1, :, e : e + 1], sigma[b, 0, e, 0, 0])
            assert torch.allclose(together[b : b + 1, :, e : e + 1], alone, atol=1e-6)


def test_a_sigma_along_the_wrong_axis_is_refused():
    y = torch.zeros(1, 1, 3, 4, 5)
    for shape in ((5,), (1, 1, 5, 1, 1), (3, 1)):
        with pytest.raises(ValueError, match="0-d tensor"):
            EDMDenoiser(lambda x, c_noise: x)(y, torch.ones(shape))


def test_autoguidance_extrapolates_within_its_interval_only():
    y = torch.ones(1, 1, 1, 2, 1)
    good, weak = CallCounter(lambda y, sigma: 3 * y), CallCounter(lambda y, sigma: y)
    guided = Autoguidance(good, weak, weight=1.5, sigma_min=0.1, sigma_max=10.0)
    assert torch.equal(guided(y, scalar(1.0)), torch.full_like(y, 4.0))
    assert torch.equal(guided(y, scalar(20.0)), torch.full_like(y, 3.0))
    assert torch.equal(guided(y, scalar(0.05)), torch.full_like(y, 3.0))
    assert (good.calls, weak.calls) == (3, 1)
    with pytest.raises(ValueError, match="sigma_min ≤ sigma_max"):
        Autoguidance(good, weak, 2.0, sigma_min=3.0, sigma_max=1.0)


def test_autoguidance_narrows_a_gaussian():
    y = 80 * torch.ones(1, 1, 1, 1, 1)
    good, weak = (Gaussian(0.0, torch.eye(1) * variance) for variance in (1.0, 2.0))
    plain, guided = (
        sample(heun, denoiser, y, karras(50, 80.0, 0.002)).item()
        for denoiser in (good, Autoguidance(good, weak, weight=2.0))
    )
    assert plain == pytest.approx(1.0, abs=0.01)
    assert 0.5 < guided < 0.9


def test_the_counter_agrees_with_the_sampler():
    counter = CallCounter(lambda y, sigma: y / (1 + sigma**2))
    steps = list(heun(counter, torch.ones(3), karras(10, 80.0, 0.02)))
    assert steps[-1].nfe == counter.calls == 19


def test_injected_errors_shrink_and_smooth():
    y = torch.tensor([0.0, 0.0, 3.0, 0.0]).reshape(1, 1, 1, 4, 1)
    identity = lambda y, sigma: y  # noqa: E731
    ring = torch.eye(4).roll(1, 0) / 3 + torch.eye(4).roll(-1, 0) / 3 + torch.eye(4) / 3
    smoothed = ErrorInjector(identity, smooth=0.5, averaging=ring)(y, scalar(1.0))
    assert smoothed.flatten().tolist() == pytest.approx([0, 0.5, 2, 0.5])
    shrunk = ErrorInjector(identity, shrink=0.25, mean=1.0)(y, scalar(1.0))
    assert shrunk.flatten().tolist() == pytest.approx([0.25, 0.25, 2.5, 0.25])
    with pytest.raises(ValueError, match="averaging"):
        ErrorInjector(identity, smooth=0.5)
    with pytest.raises(ValueError, match="shrink"):
        ErrorInjector(identity, shrink=1.5)
