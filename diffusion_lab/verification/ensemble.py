"""Ensemble scores on torch tensors, fast enough for validation during training and for a live widget.

A score takes two steps, since a ratio of means is not the mean of ratios: `area_means` gives area means for
each case, which can be averaged over cases, and `ensemble_scores` converts such averages to scores.
`verification.score` does the same for labelled forecasts, with the `scores` library.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def fair_crps(forecast: Tensor, truth: Tensor, dim: int) -> Tensor:
    """Fair continuous ranked probability score of an ensemble, point by point (Ferro 2014, eq. 8).

    CRPS = 1/M Σ_i |x_i - y| - 1/(2M(M-1)) Σ_ij |x_i - x_j|: an unbiased estimate of the score of the
    distribution from which the M members are drawn.

    Args:
        forecast: any shape, with M members along `dim`.
        truth: the shape of `forecast` without `dim`.
        dim: the dimension of the members.

    Returns:
        The shape of `truth`, in the units of the forecast.

    Raises:
        ValueError: if there are fewer than two members.
    """
    members = forecast.movedim(dim, 0)
    count = _count_members(members)
    # Differences at every lag i - j: for tens of members faster than sorting, and without the cancellation of
    # the sorted form Σ (2i - M - 1) x_(i) in float32 for values far from 0.
    between = sum((members[lag:] - members[:-lag]).abs().sum(0) for lag in range(1, count))
    return (members - truth).abs().mean(0) - between / (count * (count - 1))


def area_means(forecast: Tensor, truth: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Area-weighted means from which ensemble scores follow.

    Args:
        forecast: (…, ensemble, grid, variable) of two members or more.
        truth: (…, grid, variable); nodes where it is NaN are left out.
        weights: (grid,) area weights, of any sum.

    Returns:
        "fair_crps", "squared_error" of the ensemble mean and "variance" of the members (ddof = 1), each
        (…, variable).

    Raises:
        ValueError: if there are fewer than two members.
    """
    count = _count_members(forecast.movedim(-3, 0))
    mean = forecast.mean(-3)
    fields = {
        "fair_crps": fair_crps(forecast, truth, dim=-3),
        "squared_error": (mean - truth).square(),
        # Three times as fast as `var` along a dimension that is not the last.
        "variance": (forecast - mean.unsqueeze(-3)).square().sum(-3) / (count - 1),
    }
    known = truth.isfinite()
    return {name: area_mean(field.where(known, torch.nan), weights) for name, field in fields.items()}


def ensemble_scores(means: Mapping[str, Tensor], num_members: int) -> dict[str, Tensor]:
    """Scores from the averages of `area_means` over all cases.

    The spread-skill ratio √((M + 1)/M · mean variance / mean squared error) is 1 for members exchangeable
    with the truth (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1).

    Args:
        means: averaged over cases, of any shape.
        num_members: M.

    Returns:
        "fair_crps", "rmse" (of the ensemble mean) and "spread" in the forecast's units, and "spread_skill".
    """
    variance, squared_error = means["variance"], means["squared_error"]
    return {
        "fair_crps": means["fair_crps"],
        "rmse": squared_error.sqrt(),
        "spread": variance.sqrt(),
        "spread_skill": ((num_members + 1) / num_members * variance / squared_error).sqrt(),
    }


def baseline_means(baseline: Tensor, truth: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Area-weighted "absolute_error" and "squared_error" of a deterministic forecast such as persistence.

    Args:
        baseline: (…, grid, variable).
        truth: (…, grid, variable); nodes where it is NaN are left out.
        weights: (grid,) area weights, of any sum.

    Returns:
        Each (…, variable). The absolute error is the CRPS of a deterministic forecast.
    """
    error = baseline - truth
    return {
        "absolute_error": area_mean(error.abs(), weights),
        "squared_error": area_mean(error.square(), weights),
    }


def area_mean(field: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of a field (…, grid, variable) over the nodes where it is not NaN, (…, variable)."""
    weight = weights[:, None].to(field.dtype) * ~field.isnan()
    return (field.nan_to_num() * weight).sum(-2) / weight.sum(-2)


def _count_members(members: Tensor) -> int:
    if len(members) < 2:
        raise ValueError(f"ensemble scores need two members or more, got {len(members)}")
    return len(members)
