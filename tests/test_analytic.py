"""Exact denoisers against quadrature, Tweedie's formula and brute-force conditioning."""

import math

import pytest
import torch

from diffusion_lab.analytic import Gaussian, GaussianMixture, LinearGaussianForecast
from diffusion_lab.samplers import heun, sample
from diffusion_lab.schedules import karras

MIXTURE = GaussianMixture([0.3, 0.5, 0.2], [-1.0, 0.2, 1.5], [0.3, 0.2, 0.25])
RING = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])


def scalar(sigma):
    return torch.tensor(sigma, dtype=torch.float64)


def normal(x, variance):
    return torch.exp(-(x**2) / variance / 2) / math.sqrt(2 * math.pi * variance)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_mixture_denoiser_is_the_posterior_mean(sigma):
    clean = torch.linspace(-4, 4, 40001, dtype=torch.float64)
    prior = sum(
        w * normal(clean - m, s**2)
        for w, m, s in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.stds, strict=True)
    )
    y = torch.tensor([-1.3, -0.2, 0.9, 2.0], dtype=torch.float64)
    posterior = prior * normal(y[:, None] - clean, sigma**2)
    expected = (posterior * clean).sum(1) / posterior.sum(1)
    assert torch.allclose(MIXTURE(y, scalar(sigma)), expected, atol=1e-9)


def test_mixture_denoiser_is_right_far_outside():
    # Far out the component with the largest variance is alone: N(−1, 0.3²).
    y = torch.tensor([-1e3, 1e3], dtype=torch.float64)
    assert torch.allclose(MIXTURE(y, scalar(1e-3)), -1 + 0.09 / (0.09 + 1e-6) * (y + 1), rtol=1e-12)


def test_vector_mixture_obeys_tweedie():
    weights, stds = [0.6, 0.4], [0.5, 0.2]
    means = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]], dtype=torch.float64)
    mixture = GaussianMixture(weights, means.tolist(), stds)
    y = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sigma = 0.7
    density = sum(
        w * normal(y - m, s**2 + sigma**2).prod(-1) for w, m, s in zip(weights, means, stds, strict=True)
    )
    (score,) = torch.autograd.grad(density.log().sum(), y)
    assert torch.allclose(mixture(y, scalar(sigma)), y + sigma**2 * score, atol=1e-12)


def test_one_level_per_member_equals_one_at_a_time():
    y = torch.randn(2, 1, 3, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64).reshape(1, 1, 3, 1, 1)
    vectors = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.1, 0.2])
    for denoiser in (MIXTURE, vectors, Gaussian(0.5, torch.eye(4) + 0.3)):
        together = denoiser(y, sigma)
        for e in range(3):
            alone = denoiser(y[:, :, e : e + 1], sigma[0, 0, e, 0, 0])
            assert torch.allclose(together[:, :, e : e + 1], alone, atol=1e-12)


def test_quantiles_invert_the_distribution_function():
    x = MIXTURE.quantile(torch.tensor([1e-300, 1e-3, 0.5, 1 - 1e-3], dtype=torch.float64), 0.5)
    cdf = sum(
        w / 2 * torch.tensor([math.erfc(z) for z in (m - x) / (2 * s**2 + 0.5).sqrt()], dtype=torch.float64)
        for w, m, s in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.stds, strict=True)
    )
    assert torch.allclose(
        cdf, torch.tensor([1e-300, 1e-3, 0.5, 1 - 1e-3], dtype=torch.float64), rtol=1e-9, atol=0
    )


def test_probability_flow_solves_the_ode():
    from scipy.integrate import solve_ivp

    start = [-150.0, -3.0, 40.0, 300.0]  # out to nearly four standard deviations
    solution = solve_ivp(
        lambda sigma, y: (y - MIXTURE(torch.from_numpy(y), scalar(sigma)).numpy()) / sigma,
        (80.0, 0.01),
        start,
        method="DOP853",
        rtol=1e-12,
        atol=1e-12,
    )
    exact = MIXTURE.probability_flow(torch.tensor(start), 80.0, 0.01)
    assert exact.tolist() == pytest.approx(solution.y[:, -1].tolist(), abs=1e-8)
    assert torch.allclose(
        MIXTURE.probability_flow(exact, 0.01, 80.0), torch.tensor(start).double(), rtol=1e-9
    )


def test_mixture_draws_have_its_moments():
    x = MIXTURE.sample((200, 100), torch.Generator().manual_seed(0))
    assert x.mean().item() == pytest.approx(0.1, abs=0.02)  # −.3 + .1 + .3
    assert x.var().item() == pytest.approx(0.8195 - 0.01, abs=0.03)  # Σ w (s² + m²) − mean²
    vectors = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1])
    assert vectors.sample((50,), torch.Generator().manual_seed(0)).shape == (50, 2)


def test_bad_mixtures_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        GaussianMixture([0.5, 0.6], [0.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="unequal"):
        GaussianMixture([1.0], [0.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="not of vectors"):
        GaussianMixture([1.0], [[0.0, 1.0]], [1.0]).quantile(torch.tensor([0.5]), 1.0)


def test_gaussian_denoiser_is_the_conditional_mean():
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    covariance = factor @ factor.T
    mean = torch.randn(2, 1, 1, 5, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 1, 4, 5, 3, generator=generator, dtype=torch.float64)
    gain = torch.linalg.solve(covariance + 0.49 * torch.eye(5), covariance).T
    expected = mean + torch.einsum("ij,btejv->bteiv", gain, y - mean)
    assert torch.allclose(Gaussian(mean, covariance)(y, scalar(0.7)), expected, atol=1e-12)
    # float32 in, float32 out, near enough.
    single = Gaussian(mean, covariance)(y.float(), scalar(0.7))
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), expected, atol=1e-5)


def test_gaussian_probability_flow_is_what_samplers_converge_to():
    covariance = torch.tensor([[2.0, 0.8], [0.8, 0.5]], dtype=torch.float64)
    target = Gaussian(torch.tensor([[1.0], [-2.0]]), covariance)
    y = torch.tensor([[30.0], [-50.0]], dtype=torch.float64)
    levels = karras(400, 80.0, 0.01)[:-1]
    exact = target.probability_flow(y, 80.0, 0.01)
    assert torch.allclose(sample(heun, target, y, levels), exact, atol=2e-4)


def test_a_seed_draws_the_same_wherever_it_runs():
    """By the symmetric root of C: eigenvectors have any sign, and those of equal eigenvalues turn freely."""
    covariance = torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0]], dtype=torch.float64)
    drawn = Gaussian(0.5, covariance).sample((4, 3, 1), torch.Generator().manual_seed(0))
    white = torch.randn(4, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The eigenvalue of (1, 1, 1)/√3 is 4, that of all normal to it 1: to the identity the root adds 1/3.
    root = torch.eye(3, dtype=torch.float64) + 1 / 3
    torch.testing.assert_close(drawn, 0.5 + root @ white)


def test_gaussian_refuses_what_is_no_covariance():
    with pytest.raises(ValueError, match="symmetric"):
        Gaussian(0.0, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="negative eigenvalue"):
        Gaussian(0.0, torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


def test_forecast_covariance_by_hand():
    # Two nodes joined both ways: P averages them; A = 0.8·(½ I + ½ P) = [[.6, .2], [.2, .6]].
    problem = LinearGaussianForecast.on_graph(torch.tensor([[0, 1], [1, 0]]), 2, memory=0.8, smoothness=0.0)
    assert torch.allclose(problem.propagator, torch.tensor([[0.6, 0.2], [0.2, 0.6]], dtype=torch.float64))
    assert torch.allclose(problem.noise_covariance, 0.36 * torch.eye(2, dtype=torch.float64))
    two = problem.forecast(torch.tensor([[1.0], [0.0]]), steps=2)
    assert two.mean.flatten().tolist() == pytest.approx([0.4, 0.24])  # A² = [[.4, .24], [.24, .4]]
    assert torch.allclose(
        two.covariance, 0.36 * torch.tensor([[1.4, 0.24], [0.24, 1.4]], dtype=torch.float64)
    )


def test_climate_is_stationary_and_simulated():
    problem = LinearGaussianForecast.on_graph(RING, 12)
    covariance, propagator = problem.climate().covariance, problem.propagator
    assert torch.allclose(propagator @ covariance @ propagator.T + problem.noise_covariance, covariance)
    states = problem.simulate(4000, 3, torch.Generator().manual_seed(0))
    assert states.shape == (4000, 12, 3)
    assert states.pow(2).mean().item() == pytest.approx(covariance.diagonal().mean().item(), rel=0.1)
    jumps = states[1:] - propagator @ states[:-1]
    sampled = torch.einsum("tiv,tjv->ij", jumps, jumps) / (3999 * 3)
    assert (sampled - problem.noise_covariance).abs().max() < 0.01


def test_noise_is_smooth_with_the_stated_variance():
    noise = LinearGaussianForecast.on_graph(RING, 12, memory=0.6, smoothness=2.0).noise_covariance
    assert torch.allclose(noise.diagonal(), torch.full((12,), 0.64, dtype=torch.float64))
    assert noise[0, 1] > noise[0, 2] > noise[0, 5] > 0


def test_sampling_gives_the_true_ensemble():
    # The probability flow is linear here, so unit vectors show the whole map: its square is the covariance.
    problem = LinearGaussianForecast.on_graph(RING, 12)
    past = torch.randn(1, 2, 1, 12, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser = problem.denoiser(past)
    truth = problem.forecast(past[0, 1, 0])
    y = truth.mean[:, 0] + 80 * torch.cat([torch.zeros(1, 12), torch.eye(12)])
    members = sample(heun, denoiser, y.reshape(1, 1, 13, 12, 1), karras(100, 80.0, 0.002))[0, 0, :, :, 0]
    spread = members[1:] - members[0]
    assert torch.allclose(members[0], truth.mean[:, 0], atol=1e-6)
    assert torch.allclose(spread.T @ spread, truth.covariance, atol=1e-3)


def test_best_crps_is_that_of_the_true_distribution():
    problem = LinearGaussianForecast.on_graph(RING, 12)
    truth = problem.forecast(torch.zeros(12, 1), steps=3)
    generator = torch.Generator().manual_seed(0)
    x, member, other = (truth.sample((20000, 12, 1), generator) for _ in range(3))
    crps = ((member - x).abs() - (member - other).abs() / 2).mean((0, 2))
    assert torch.allclose(crps, problem.best_crps(steps=3), rtol=0.03)


def test_bad_problems_are_refused():
    with pytest.raises(ValueError, match="memory"):
        LinearGaussianForecast.on_graph(RING, 12, memory=1.0)
