"""Guidance by observations against the posterior of a Gaussian, which is known."""

import math

import pytest
import torch

from diffusion_lab.analytic import Gaussian, LinearGaussianForecast
from diffusion_lab.guidance import DPS, MMPS, LinearOperator, Observations, conjugate_gradients
from diffusion_lab.noise import noise_like
from diffusion_lab.samplers import SAMPLERS, sample
from diffusion_lab.schedules import karras

NODES, MEMBERS = 24, 4000
RING = torch.stack([torch.arange(NODES), (torch.arange(NODES) + 1) % NODES])
PROBLEM = LinearGaussianForecast.on_graph(torch.cat([RING, RING.flip(0)], dim=1), NODES)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def single_cells(*cells):
    cells = torch.tensor(cells)[:, None]
    return LinearOperator(cells, torch.ones(cells.shape), torch.zeros(len(cells), dtype=torch.long))


PRIOR = PROBLEM.forecast(random(1, 1, 1, NODES, 1))
OBSERVATIONS = Observations(
    torch.tensor([0.9, 0.7, -0.5, 0.3]), single_cells(3, 4, 5, 15), torch.tensor([0.1, 0.1, 0.2, 0.05])
)


def posterior():
    """Mean (grid,) and covariance (grid, grid) by the Kalman formulas."""
    h = torch.zeros(4, NODES, dtype=torch.float64)
    h[range(4), [3, 4, 5, 15]] = 1
    c, mean = PRIOR.covariance, PRIOR.mean[0, 0, 0, :, 0]
    gain = c @ h.mT @ torch.linalg.inv(h @ c @ h.mT + OBSERVATIONS.error.double().square().diag())
    return mean + gain @ (OBSERVATIONS.values - h @ mean), c - gain @ h @ c


def sampled(denoiser, name="dpmpp_3m", num_steps=50, **options):
    """Moments of an ensemble: (grid,) and (grid, grid)."""
    y = torch.empty(1, 1, MEMBERS, NODES, 1, dtype=torch.float64)
    noise = noise_like(y, torch.Generator().manual_seed(1))
    if options:
        options["noise"] = noise
    sigmas = karras(num_steps, 100.0, 0.005)
    states = sample(SAMPLERS[name], denoiser, sigmas[0] * noise(0).double(), sigmas, **options)[0, 0, :, :, 0]
    return states.mean(0), torch.cov(states.T)


@pytest.mark.parametrize(("name", "options"), [("dpmpp_3m", {}), ("heun", {}), ("heun", {"S_churn": 5.0})])
def test_moment_matching_samples_the_posterior(name, options):
    mean, covariance = posterior()
    found_mean, found = sampled(MMPS(PRIOR, OBSERVATIONS), name, **options)
    spread = PRIOR.covariance.diagonal().mean().sqrt()
    assert ((found_mean - mean).square().mean().sqrt() / spread).item() < 0.02
    assert ((found.diagonal() / covariance.diagonal()) - 1).abs().max().item() < 0.1
    assert ((found - covariance).norm() / covariance.norm()).item() < 0.1


def test_dps_is_exact_for_one_observation_of_independent_values():
    """There its assumption holds: p(x | y) has the variance σ²σd²/(σ² + σd²) in every cell."""
    prior = Gaussian(0.0, torch.eye(NODES, dtype=torch.float64))
    observations = Observations(torch.tensor([2.0]), single_cells(7), torch.tensor([0.5]))
    mean, covariance = sampled(DPS(prior, observations))
    assert mean[7].item() == pytest.approx(2 / 1.25, abs=0.03)
    assert covariance[7, 7].item() == pytest.approx(0.25 / 1.25, rel=0.06)


def test_dps_takes_correlated_errors_for_independent():
    """As its docstring says: too sure with a small γ, and a worse mean than moment matching with any."""
    mean, covariance = posterior()
    seen, spread = [3, 4, 5, 15], PRIOR.covariance.diagonal().mean().sqrt()

    def errors(denoiser):
        found_mean, found = sampled(denoiser)
        ratio = (found.diagonal() / covariance.diagonal())[seen].mean()
        return (found_mean - mean).square().mean().sqrt() / spread, ratio

    mean_small, variance_small = errors(DPS(PRIOR, OBSERVATIONS, 0.1))
    mean_one, _ = errors(DPS(PRIOR, OBSERVATIONS, 1.0))
    mean_matched, _ = errors(MMPS(PRIOR, OBSERVATIONS))
    assert variance_small < 0.5
    assert mean_matched < 0.5 * mean_small
    assert mean_matched < 0.1 * mean_one


def test_members_and_samples_are_guided_independently():
    y = random(3, 1, 5, NODES, 1, seed=2)
    sigma = torch.tensor(2.0, dtype=torch.float64)
    prior = Gaussian(0.0, PROBLEM.noise_covariance)
    for method in (DPS, MMPS):
        guided = method(prior, OBSERVATIONS)
        together, alone = guided(y, sigma), guided(y[1:2, :, 2:3], sigma)
        assert torch.allclose(together[1:2, :, 2:3], alone, atol=1e-12)
        assert not together.requires_grad


def test_a_nonlinear_operator_is_linearised_where_the_denoiser_stands():
    """With h(x) = exp(x): one step of the formula with H = exp(D)."""
    prior = Gaussian(0.0, torch.eye(1, dtype=torch.float64))
    observations = Observations(torch.tensor([1.5]), lambda x: x[:, 0, :, :, 0].exp(), torch.tensor([0.3]))
    y, sigma = torch.full((1, 1, 1, 1, 1), 0.8, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    d, v = 0.4, 0.5  # y/(1 + σ²) and σ²/(1 + σ²)
    h = math.exp(d)
    expected = d + v * h / (0.3**2 + h * v * h) * (1.5 - h)
    assert MMPS(prior, observations)(y, sigma).item() == pytest.approx(expected, rel=1e-9)


def test_guidance_works_within_inference_mode():
    y, sigma = random(1, 1, 2, NODES, 1), torch.tensor(1.0, dtype=torch.float64)
    outside = MMPS(PRIOR, OBSERVATIONS)(y, sigma)
    with torch.inference_mode():
        assert torch.equal(MMPS(PRIOR, OBSERVATIONS)(y.clone(), sigma), outside)


def test_conjugate_gradients_end_after_as_many_steps_as_there_are_unknowns():
    root = random(2, 6, 6)
    matrix, b = root @ root.mT + 0.1 * torch.eye(6), random(2, 6, seed=3)
    found = conjugate_gradients(lambda x: (matrix @ x[..., None])[..., 0], b, 20, 1e-13)
    assert torch.allclose(found, torch.linalg.solve(matrix, b), rtol=1e-7)


def test_conjugate_gradients_stop_at_negative_curvature():
    matrix = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    found = conjugate_gradients(lambda x: x @ matrix, torch.tensor([[1.0, 2.0], [3.0, 0.0]]).double(), 10)
    assert torch.allclose(found, torch.tensor([[0.0, 0.0], [3.0, 0.0]]).double())


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [([1.0], [0.1, 0.1], "shape"), ([1.0], [0.0], "positive"), ([1.0], [math.nan], "positive")],
)
def test_observations_that_do_not_fit_are_refused(values, error, words):
    with pytest.raises(ValueError, match=words):
        Observations(torch.tensor(values), single_cells(0), torch.tensor(error))
