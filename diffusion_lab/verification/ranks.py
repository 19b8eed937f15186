"""Rank histograms, and a test of their flatness that accounts for spatial correlation.

A truth that is exchangeable with the members takes each rank among them equally often (Hamill 2001,
doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2). The usual χ² test treats thousands of cells as
independent, though a globe has only a few dozen degrees of freedom, and rejects every ensemble. Here each
member takes the place of the truth instead, which shows how far from flat a histogram can be by chance.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

Float64 = NDArray[np.float64]

_PERMUTATIONS = 999


def rank_table(forecast: Float64, truth: Float64, weights: Float64) -> Float64:
    """How often the truth, and each member in its place, takes each rank among the others.

    Ties share their ranks evenly. Cells with a missing value are left out.

    Args:
        forecast: (…, ensemble, cell) of M members.
        truth: (…, cell).
        weights: (cell,) area weights, of any sum.

    Returns:
        (…, M + 1, M + 1): relative frequency by candidate, the truth first, and by rank; NaN without cells.
    """
    fields = np.concatenate([truth[..., None, :], forecast], axis=-2)
    cases = fields.reshape(-1, *fields.shape[-2:])
    tables = [_rank_table_of_case(case, weights) for case in cases]
    return np.stack(tables).reshape(*fields.shape[:-1], fields.shape[-2])


def _rank_table_of_case(fields: Float64, weights: Float64) -> Float64:
    """Of fields (candidate, cell)."""
    known = np.isfinite(fields).all(axis=0)
    if not known.any():
        return np.full((len(fields), len(fields)), np.nan)
    fields, weights = fields[:, known], weights[known] / weights[known].sum()
    # The ranks, of 0 … M, that a candidate shares with its ties.
    lowest, highest = (rankdata(fields, method, axis=0) - 1 for method in ("min", "max"))
    share = weights / (highest - lowest + 1)
    taken = ((lowest <= rank) & (rank <= highest) for rank in range(len(fields)))
    return np.stack([np.where(at, share, 0).sum(axis=1) for at in taken], axis=1)


def flatness(table: xr.DataArray) -> xr.Dataset:
    """How far rank histograms are from flat, and whether chance explains it.

    The distance is Σ_k (f_k − 1/(M + 1))². If truth and members are exchangeable, each of the M + 1 fields of
    a start could as well have been the truth. The p-value is the share of random choices of one field for
    each start that lead to at least this distance. It is exact for any spatial correlation and independent
    starts.

    Args:
        table: (start, …, candidate, rank) from `rank_table`; the first candidate is the truth.

    Returns:
        `reliability_index`, Σ_k |f_k − 1/(M + 1)| (Delle Monache et al. 2006, doi:10.1029/2005JD006917), and
        `rank_p`, both (…); a p-value below 0.05 indicates that the histogram is not flat.
    """
    table = table.transpose("start", ..., "candidate", "rank")
    values, count = table.values, table.sizes["rank"]

    def distance(histogram: Float64) -> Float64:
        return ((histogram - 1 / count) ** 2).sum(axis=-1)

    observed = np.nanmean(values[..., 0, :], axis=0)
    rng = np.random.default_rng(0)
    starts = np.arange(len(values))
    # Where choices repeat, as with one start, distances that are equal up to rounding must count.
    needed = distance(observed) * (1 - 1e-9)
    as_far = sum(
        distance(np.nanmean(values[starts, ..., rng.integers(count, size=len(starts)), :], axis=0)) >= needed
        for _ in range(_PERMUTATIONS)
    )
    p_value = np.where(np.isfinite(observed[..., 0]), (1 + as_far) / (1 + _PERMUTATIONS), np.nan)
    like = table.isel(start=0, candidate=0, rank=0, drop=True)
    return xr.Dataset(
        {
            "reliability_index": like.copy(data=np.abs(observed - 1 / count).sum(axis=-1)),
            "rank_p": like.copy(data=p_value),
        }
    )
