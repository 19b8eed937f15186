"""Scores from the means of each start: averages first, then roots and ratios, with confidence intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffusion_lab.verification.events import event_scores
from diffusion_lab.verification.ranks import flatness

_FEWEST_STARTS = 5  # for confidence intervals
_RESAMPLES = 1000
LEVEL = 0.95


def summarise(means: xr.Dataset) -> xr.Dataset:
    """Scores from the means of `case_means` over all starts or some.

    Returns:
        (variable, lead_time): `fair_crps`, `rmse` of the ensemble mean, `spread`, `bias` and `energy_score`
        in the field's units; `spread_skill` = √((M + 1)/M · mean variance / mean squared error), which is 1
        for members exchangeable with the truth (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1);
        `anomaly_correlation`; for each baseline `<name>_rmse`, `<name>_mae` (of an ensemble
        `<name>_fair_crps`) and the skill `<name>_crpss` = 1 − fair CRPS / that; `rank_histogram` (…, rank)
        with its test, see `ranks.flatness`; `brier`, `brier_skill`, `roc_area`, `event_share` and
        `event_happened` (…, event), see `events`; `power`, `mean_power`, `truth_power` and `power_ratio` of
        members to truth (…, wavenumber). Scores whose ingredients are missing are left out.
        `<score>_interval` (bound, …) is NaN with fewer than five starts.
    """
    scores = _scores_of(means.mean("start", keep_attrs=True))
    bounds = intervals(means).data_vars
    scores = scores.assign({f"{name}_interval": bound for name, bound in bounds.items()})
    if "rank_table" in means:
        scores = scores.assign(flatness(means["rank_table"]).data_vars)
    return scores.assign_attrs(num_members=means.attrs["num_members"], num_starts=means.sizes["start"])


def intervals(means: xr.Dataset, block: int | None = None) -> xr.Dataset:
    """95 % confidence intervals of scores, by a circular block bootstrap over starts.

    Consecutive starts share their weather or season, so whole blocks are drawn (Politis & Romano 1992). The
    bounds are percentiles of the scores of 1,000 resamples; a skill resamples forecast and baseline together.

    Args:
        means: from `case_means`, starts in order of time.
        block: starts in a block; by default the cube root of their number, rounded.

    Returns:
        The scores of `summarise`, (bound, …) with the bounds 0.025 and 0.975.
    """
    starts, bounds = means.sizes["start"], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if starts < _FEWEST_STARTS:
        scores = _scores_of(means.mean("start", keep_attrs=True))
        return xr.full_like(scores.astype(np.float64), np.nan).expand_dims(bound=bounds)
    counts = resampled_counts(starts, block or round(starts ** (1 / 3)), _RESAMPLES, seed=0)
    weights = xr.DataArray(counts.astype(np.float64), dims=("resample", "start"))
    # Only the truth's row of the rank table, or a thousand tables would fill the memory.
    few = means.isel(candidate=[0], missing_dims="ignore")
    resampled = _scores_of(few.weighted(weights).mean("start", keep_attrs=True))
    return resampled.quantile(bounds, "resample").rename(quantile="bound")


def resampled_counts(starts: int, block: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each start is in each resample of circular blocks, (resample, start).

    As in `scores.processing.block_bootstrap`, which needs NumPy's global generator and all resampled data in
    memory.
    """
    rng = np.random.default_rng(seed)
    first = rng.integers(starts, size=(resamples, -(-starts // block), 1))
    drawn = ((first + np.arange(block)) % starts).reshape(resamples, -1)[:, :starts]
    return np.stack([np.bincount(row, minlength=starts) for row in drawn])


def names_of_baselines(scores: xr.Dataset) -> list[str]:
    """The baselines in the scores of `summarise`."""
    return [str(name).removesuffix("_rmse") for name in scores.data_vars if str(name).endswith("_rmse")]


def _scores_of(mean: xr.Dataset) -> xr.Dataset:
    """Scores from means over starts, of any further dimensions."""
    num_members = mean.attrs["num_members"]
    ratio = (num_members + 1) / num_members * mean["variance"] / mean["squared_error"]
    scores = {
        "fair_crps": mean["fair_crps"],
        "rmse": np.sqrt(mean["squared_error"]),
        "spread": np.sqrt(mean["variance"]),
        "spread_skill": np.sqrt(ratio),
        **{name: mean[name] for name in ("bias", "energy_score", "anomaly_correlation") if name in mean},
    }
    for name in map(str, mean.data_vars):
        for suffix, score in {"_absolute_error": "mae", "_fair_crps": "fair_crps"}.items():
            if name.endswith(suffix):
                baseline = name.removesuffix(suffix)
                scores[f"{baseline}_{score}"] = mean[name]
                scores[f"{baseline}_crpss"] = 1 - mean["fair_crps"] / mean[name]
                scores[f"{baseline}_rmse"] = np.sqrt(mean[f"{baseline}_squared_error"])
    if "rank_table" in mean:
        scores["rank_histogram"] = mean["rank_table"].isel(candidate=0)
    if "power" in mean:
        scores |= {name: mean[name] for name in ("power", "mean_power", "truth_power")}
        scores["power_ratio"] = mean["power"] / mean["truth_power"]
    if "event_share" in mean:
        table = mean["event_share"], mean["event_happened"]
        scores |= {"event_share": table[0], "event_happened": table[1]}
        scores |= {str(name): score for name, score in event_scores(*table).data_vars.items()}
    return xr.Dataset(scores)
