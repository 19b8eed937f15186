"""An ensemble against the true one, where that is known: the linear-Gaussian problem of `analytic`.

result = compare_with_truth(model.denoiser, problem)  # or problem.denoiser: the sampler alone
result.crps / result.best_crps                        # 1 for a perfect forecaster
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lab.analytic import LinearGaussianForecast
from diffusion_lab.denoisers import Denoiser
from diffusion_lab.noise import noise_like
from diffusion_lab.sampling import PRESETS, SamplingSettings
from diffusion_lab.verification.ensemble import fair_crps


@dataclass(frozen=True)
class TrueEnsembleComparison:
    """How a sampled ensemble differs from the true distribution, over all start states.

    Attributes:
        mean_error: root mean square of ensemble mean − true mean, without what M members leave to chance.
        covariance: (grid, grid) of the members about their mean, averaged over starts.
        true_covariance: (grid, grid).
        crps: (grid,) fair CRPS, its expectation over the truth exact.
        best_crps: (grid,) that of the true distribution, the least there can be.
    """

    mean_error: float
    covariance: Tensor
    true_covariance: Tensor
    crps: Tensor
    best_crps: Tensor


def compare_with_truth(
    denoiser_of: Callable[[Tensor], Denoiser],
    problem: LinearGaussianForecast,
    settings: SamplingSettings | None = None,
    *,
    starts: int = 16,
    members: int = 64,
    seed: int = 0,
) -> TrueEnsembleComparison:
    """Sample one step ahead from states of the climate and compare with what is known.

    Args:
        denoiser_of: from a state x (start, 1, 1, grid, 1) to a denoiser of the next one, such as
            `model.denoiser` of a state model, or `problem.denoiser`.
        problem: with the true forecast.
        settings: schedule and sampler; the guide's if left out.
        starts: how many states.
        members: M, two or more.
        seed: of states and members.

    Returns:
        The comparison.
    """
    generator = torch.Generator().manual_seed(seed)
    nodes = len(problem.propagator)
    x = problem.climate().sample((starts, 1, 1, nodes, 1), generator)
    y = torch.empty(starts, 1, members, nodes, 1)
    denoiser = denoiser_of(x.float())
    forecast = (settings or PRESETS["guide"]).sample(denoiser, noise_like(y, generator)).double()
    truth = problem.forecast(x)
    deviation = (forecast - forecast.mean(2, keepdim=True))[:, 0, :, :, 0]
    covariance = torch.einsum("bei,bej->ij", deviation, deviation) / (starts * (members - 1))
    squared = (forecast.mean(2, keepdim=True) - truth.mean).square().mean()
    variance = truth.covariance.diagonal()[:, None]
    to_truth = expected_distance(forecast - truth.mean, variance.sqrt()).mean(2)
    # Against a truth of zero the score is E|x| less half the members' distance from each other.
    within = forecast.abs().mean(2) - fair_crps(forecast, torch.zeros_like(forecast[:, :, 0]), dim=2)
    return TrueEnsembleComparison(
        math.sqrt(max(0.0, (squared - covariance.diagonal().mean() / members).item())),
        covariance,
        truth.covariance,
        (to_truth - within).mean((0, 1, 3)),
        problem.best_crps(),
    )


def expected_distance(x: Tensor, stdev: Tensor) -> Tensor:
    """E|x − y| for y ~ N(0, stdev²): stdev (z (2Φ(z) − 1) + 2φ(z)) with z = x/stdev."""
    z = x / stdev
    return stdev * (z * torch.erf(z / math.sqrt(2)) + math.sqrt(2 / math.pi) * torch.exp(-(z**2) / 2))
