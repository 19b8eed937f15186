"""Added noise against exact variances.

With a denoiser linear in y, a state whose element k carries only noise source k (the start, then one per
draw) evolves into the amplitudes of all sources; their squares sum to the exact variance of the sampler.
"""

import math

import pytest
import torch

from diffusion_lab.noise import noise_like
from diffusion_lab.samplers import (
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    effective_churn,
    euler,
    euler_ancestral,
    heun,
    sample,
)
from diffusion_lab.schedules import karras


def sources(num_steps):
    basis = torch.eye(num_steps + 1, dtype=torch.float64)
    return basis[0], lambda draw: basis[draw]


def unit_gaussian(y, sigma):
    return y / (1 + sigma**2)


@pytest.mark.parametrize("sampler", [heun, dpmpp_2s])
def test_churn_raises_the_variance_by_exactly_the_difference_of_levels(sampler):
    levels = karras(10, 80.0, 0.02)
    start, noise = sources(10)
    seen = []

    def recording(y, sigma):
        seen.append((sigma.item(), y.clone()))
        return unit_gaussian(y, sigma)

    state = levels[0] * start
    for step in sampler(recording, state, levels, S_churn=3.0, S_min=0.05, S_max=50.0, noise=noise):
        sigma = levels[step.index].item()
        gamma = 0.3 if 0.05 <= sigma <= 50 else 0.0
        sigma_hat, y_hat = seen[0]
        assert sigma_hat == pytest.approx(sigma * (1 + gamma), rel=1e-14)
        raised = (y_hat**2).sum() - (state**2).sum()
        assert raised.item() == pytest.approx(sigma_hat**2 - sigma**2, rel=1e-9, abs=1e-12)
        state = step.state
        seen.clear()


@pytest.mark.parametrize(
    ("num_steps", "S_churn", "expected"),
    [(20, 0.0, 1.035), (20, 100.0, 1.089), (50, 0.0, 1.005), (50, 100.0, 1.024)],
)
def test_heun_on_unit_gaussian_data(num_steps, S_churn, expected):
    levels = karras(num_steps, 80.0, 0.002)
    start, noise = sources(num_steps)
    final = sample(heun, unit_gaussian, 80 * start, levels, S_churn=S_churn, noise=noise)
    std = final.square().sum().sqrt().item()
    assert std == pytest.approx(expected, abs=1e-3)

    # The same from the recursion of the variance: v ← (v + σ̂² − σ²)·a², a the step's amplification.
    variance, gamma = 80.0**2, min(S_churn / num_steps, math.sqrt(2) - 1)
    for sigma, sigma_next in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        sigma_hat = sigma * (1 + gamma)
        slope, slope_next = (
            sigma_hat / (1 + sigma_hat**2),
            sigma_next / (1 + sigma_next**2),
        )  # (y − D)/σ per y
        h = sigma_next - sigma_hat
        trapezoid = 1 + h / 2 * (slope + slope_next * (1 + h * slope))
        amplification = trapezoid if sigma_next > 0 else 1 + h * slope
        variance = (variance + sigma_hat**2 - sigma**2) * amplification**2
    assert std == pytest.approx(math.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize("sampler", [heun, dpmpp_2s])
def test_no_random_number_is_drawn_without_churn(sampler):
    def forbidden(draw):
        raise AssertionError(f"draw {draw}")

    y, levels = torch.ones(3), karras(6, 80.0, 0.02)
    plain = sample(sampler, unit_gaussian, y, levels)
    assert torch.equal(sample(sampler, unit_gaussian, y, levels, noise=forbidden), plain)
    assert torch.equal(
        sample(sampler, unit_gaussian, y, levels, S_churn=5.0, S_min=90.0, noise=forbidden), plain
    )  # no level inside


def test_draws_are_numbered_by_step():
    drawn = []

    def noise(draw):
        drawn.append(draw)
        return torch.zeros(3)

    levels = [40.0, 20.0, 10.0, 5.0, 2.0, 0.0]
    sample(heun, unit_gaussian, torch.ones(3), levels, S_churn=1.0, S_min=4.0, S_max=20.0, noise=noise)
    assert drawn == [2, 3, 4]


def test_churn_saturates():
    assert effective_churn(2.5, 20) == 2.5
    assert effective_churn(40.0, 20) == pytest.approx(8.284271247461901)
    levels, y = karras(20, 80.0, 0.02), torch.ones(3)
    runs = [
        sample(
            heun,
            unit_gaussian,
            y,
            levels,
            S_churn=S_churn,
            noise=noise_like(y, torch.Generator().manual_seed(0)),
        )
        for S_churn in (effective_churn(40.0, 20), 40.0, 1e6)
    ]
    assert torch.allclose(runs[0], runs[1], rtol=1e-14)
    assert torch.equal(runs[1], runs[2])


def test_S_noise_scales_the_noise():
    levels = karras(5, 80.0, 0.02)
    start, noise = sources(5)
    single, double = (
        sample(heun, unit_gaussian, start, levels, S_churn=2.0, S_noise=S_noise, noise=noise)
        for S_noise in (1.0, 2.0)
    )
    assert torch.allclose(double[1:], 2 * single[1:])
    assert double[0] == single[0]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sampler", [euler_ancestral, dpmpp_2m_sde])
def test_noise_alone_keeps_the_variance_of_its_level(sampler, eta):
    # Clean data 0: y is pure noise, and D = 0 leaves no solver error, so its variance is σ² at every level.
    start, noise = sources(12)
    levels = karras(12, 80.0, 0.02)
    for step in sampler(lambda y, sigma: torch.zeros_like(y), 80 * start, levels, eta=eta, noise=noise):
        assert step.state.square().sum().item() == pytest.approx(step.sigma**2, rel=1e-12)


def test_without_noise_the_stochastic_samplers_are_their_deterministic_ones():
    y, levels = torch.linspace(-100, 100, 7), karras(9, 80.0, 0.02)
    target = lambda y, sigma: torch.tanh(y) / (1 + sigma)  # noqa: E731
    assert torch.equal(sample(euler_ancestral, target, y, levels, eta=0.0), sample(euler, target, y, levels))
    assert torch.equal(sample(dpmpp_2m_sde, target, y, levels, eta=0.0), sample(dpmpp_2m, target, y, levels))


@pytest.mark.parametrize(("sampler", "order"), [(euler_ancestral, 1), (dpmpp_2m_sde, 2)])
def test_stochastic_samplers_converge_to_the_right_spread(sampler, order):
    errors = []
    for num_steps in (200, 400):
        start, noise = sources(num_steps)
        levels = karras(num_steps, 80.0, 0.02)[:-1]
        start_std, end_variance = math.sqrt(1 + 80.0**2), 1 + 0.02**2
        final = sample(sampler, unit_gaussian, start_std * start, levels, noise=noise)
        errors.append(abs(final.square().sum().item() - end_variance))
    assert math.log2(errors[0] / errors[1]) > order - 0.15


@pytest.mark.parametrize(
    ("sampler", "options", "named"),
    [
        (heun, {"S_churn": 1.0}, "MemberNoise"),
        (dpmpp_2s, {"S_churn": 1.0}, "MemberNoise"),
        (euler_ancestral, {}, "MemberNoise"),
        (dpmpp_2m_sde, {}, "MemberNoise"),
        (heun, {"S_churn": -1.0}, "S_churn = -1.0 must be ≥ 0"),
        (heun, {"S_churn": math.nan}, "S_churn = nan"),
        (heun, {"S_min": 2.0, "S_max": 1.0}, "S_min = 2.0"),
        (dpmpp_2s, {"S_noise": -1.0}, "S_noise"),
        (euler_ancestral, {"eta": 1.5}, "eta = 1.5 must be ≥ 0 and ≤ 1"),
        (dpmpp_2m_sde, {"eta": -0.5}, "eta"),
        (heun, {"S_churn": 1.0, "noise": lambda draw: torch.ones(1)}, r"noise\(1\) has shape \(1,\)"),
    ],
)
def test_bad_options_are_named(sampler, options, named):
    with pytest.raises(ValueError, match=named):
        sample(sampler, unit_gaussian, torch.ones(3), karras(5, 80.0, 0.02), **options)
