"""Scores of a forecast."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from diffusion_lab.plots.style import BASELINES, BLACK, BLUE, LINES, SKY, in_days, label, lead_time_axis, tidy

_NAMES = {
    "fair_crps": "fair CRPS",
    "rmse": "RMSE of the mean",
    "spread": "spread",
    "spread_skill": "spread-skill ratio",
    "bias": "bias of the mean",
}
_OF_BASELINES = {"fair_crps": "mae", "rmse": "rmse"}


def rank_histogram(ax: Axes, frequencies: ArrayLike) -> None:
    """Draw how often the truth takes each rank among the members, relative to a flat histogram.

    A U shape tells of too little spread, a dome of too much, a slope of a bias.

    Args:
        ax: where to draw.
        frequencies: (M + 1,) relative frequency of each rank, see `verification.rank_histogram`.
    """
    frequencies = np.asarray(frequencies)
    ranks = np.arange(1, len(frequencies) + 1)
    ax.bar(ranks, frequencies * len(ranks), width=0.92, color=SKY, edgecolor=BLUE, linewidth=0.6)
    ax.axhline(1.0, color=BLACK, linestyle="--", linewidth=1)
    tidy(ax)
    ax.set_xlim(0.4, len(ranks) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"rank of the truth among {len(ranks) - 1} members")
    ax.set_ylabel("frequency / that of a flat histogram")


def score_vs_lead(ax: Axes, scores: xr.Dataset, variable: str, score: str = "fair_crps") -> None:
    """Draw a score of one variable against lead time, beside that of the baselines.

    The CRPS stands beside the baselines' mean absolute error, the RMSE beside their RMSE and the spread.

    Args:
        ax: where to draw.
        scores: (variable, lead_time), see `verification.verify`.
        variable: name of the variable.
        score: one of "fair_crps", "rmse", "spread", "spread_skill", "bias".

    Raises:
        KeyError: if `score` is none of these.
    """
    if score not in _NAMES:
        raise KeyError(f"unknown score {score!r}; choose one of {sorted(_NAMES)}")
    chosen = scores.sel(variable=variable)
    days = in_days(chosen["lead_time"].values)
    ax.plot(days, chosen[score], color=BLUE, marker="o", markersize=4, label=_NAMES[score])
    if score == "rmse":
        ax.plot(days, chosen["spread"], color=BLUE, linestyle="--", label=_NAMES["spread"])
    suffix = _OF_BASELINES.get(score)
    names = (
        [str(n).removesuffix("_mae") for n in scores.data_vars if str(n).endswith("_mae")] if suffix else []
    )
    for number, name in enumerate(names):
        colour = BASELINES.get(name, LINES[(number + 2) % len(LINES)])
        ax.plot(days, chosen[f"{name}_{suffix}"], color=colour, label=f"{name} ({suffix.upper()})")
    if score in ("spread_skill", "bias"):
        ax.axhline(float(score == "spread_skill"), color=BLACK, linestyle="--", linewidth=1)
    else:
        ax.set_ylim(bottom=0)
    tidy(ax)
    lead_time_axis(ax)
    units = "1" if score == "spread_skill" else chosen["units"].item()
    ax.set_ylabel(label(f"{variable} {_NAMES[score]}" if score == "spread_skill" else variable, units))
    ax.legend(frameon=False, fontsize="small")
