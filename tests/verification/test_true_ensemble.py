"""The comparison with the true ensemble: exact denoisers pass, known faults show."""

import pytest
import torch

from diffusion_lab.analytic import LinearGaussianForecast
from diffusion_lab.denoisers import ErrorInjector
from diffusion_lab.verification.true_ensemble import compare_with_truth, expected_distance

RING = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
PROBLEM = LinearGaussianForecast.on_graph(RING, 12)


def test_the_exact_denoiser_samples_the_true_ensemble():
    result = compare_with_truth(PROBLEM.denoiser, PROBLEM, starts=32, members=64)
    assert result.mean_error < 0.03
    assert torch.allclose(result.covariance, result.true_covariance, atol=0.02)
    assert (result.crps / result.best_crps).mean().item() == pytest.approx(1, abs=0.01)


def test_a_shrunk_ensemble_has_less_variance_and_a_worse_score():
    def spoiled(x):
        return ErrorInjector(PROBLEM.denoiser(x), shrink=0.2, mean=PROBLEM.propagator @ x.double())

    result = compare_with_truth(spoiled, PROBLEM, starts=32, members=64)
    assert result.covariance.trace() < 0.9 * result.true_covariance.trace()
    assert result.crps.mean() > 1.005 * result.best_crps.mean()


def test_distance_to_a_normal_truth():
    y = 0.7 * torch.randn(400000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for x in (-1.0, 0.0, 2.0):
        exact = expected_distance(torch.tensor(x).double(), torch.tensor(0.7).double())
        assert (x - y).abs().mean().item() == pytest.approx(exact.item(), abs=3e-3)
