"""Forecasts of events, such as a temperature above a threshold: Brier score, reliability, ROC.

An ensemble of M members forecasts an event with a probability k/M. All these scores follow from two numbers
for each k: how often it is forecast, and how often the event then happens. Such tables can be averaged over
forecasts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class Event(NamedTuple):
    """A variable beyond a threshold.

    Attributes:
        threshold: with the dimensions of the truth, or some of them.
        above: whether the event is above the threshold, or below.
    """

    threshold: xr.Dataset
    above: bool = True


def event_table(forecast: Float64, truth: Float64, threshold: Float64, weights: Float64) -> Float64:
    """How often k members are above a threshold, and how often the truth then is.

    Args:
        forecast: (…, ensemble, cell) of M members.
        truth: (…, cell); cells where it is NaN are left out.
        threshold: (…, cell).
        weights: (cell,) area weights, of any sum.

    Returns:
        (…, 2, M + 1): the share of the area where k = 0 … M members are above, which sums to 1, and the share
        where the truth is as well.
    """
    members = (forecast > threshold[..., None, :]).sum(axis=-2)
    known = np.isfinite(truth) & np.isfinite(threshold) & np.isfinite(forecast).all(axis=-2)
    weight = np.where(known, weights, 0.0)
    weight = weight / weight.sum(axis=-1, keepdims=True)
    happened = weight * (truth > threshold)
    both = np.stack([weight, happened], axis=-2)
    counts = [(members == k)[..., None, :] for k in range(forecast.shape[-2] + 1)]
    return np.stack([(both * at).sum(axis=-1) for at in counts], axis=-1)


def event_scores(share: xr.DataArray, happened: xr.DataArray) -> xr.Dataset:
    """Scores of an event from its table, averaged over forecasts.

    Args:
        share: (…, count), how often k of M members forecast the event.
        happened: (…, count), how often they do and it happens.

    Returns:
        `brier`, the fair Brier score (Ferro 2014); `brier_skill` against a constant forecast of the observed
        frequency; `roc_area`, the area under the ROC curve; all (…).
    """
    num_members = share.sizes["count"] - 1
    k = xr.DataArray(np.arange(num_members + 1), dims="count")
    probability, total = k / num_members, happened.sum("count", skipna=False)
    error = share * probability**2 - 2 * happened * probability + happened
    excess = share * k * (num_members - k) / (num_members**2 * max(num_members - 1, 1))
    brier = (error - excess).sum("count", skipna=False)
    hits, false_alarms = roc_curve(share, happened)
    widths = -false_alarms.diff("threshold", label="lower")
    heights = (hits + hits.shift(threshold=-1)).isel(threshold=slice(-1)) / 2
    return xr.Dataset(
        {
            "brier": brier,
            "brier_skill": 1 - brier / (total * (1 - total)),
            "roc_area": (widths * heights).sum("threshold", skipna=False),
        }
    )


def roc_curve(share: xr.DataArray, happened: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Hit rate and false alarm rate if one acts when at least k members forecast the event.

    Args:
        share: (…, count), see `event_table`.
        happened: (…, count).

    Returns:
        Both (…, threshold), for k = 0 (both 1) … M + 1 (both 0).
    """

    def from_k_members(part: xr.DataArray) -> xr.DataArray:
        total = part.sum("count", skipna=False)
        below = part.cumsum("count").pad(count=(1, 0), constant_values=0.0)
        return ((total - below) / total).clip(0, 1).rename(count="threshold")

    return from_k_members(happened), from_k_members(share - happened)
