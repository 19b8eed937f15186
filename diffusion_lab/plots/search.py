"""A sampler search: trials, score against cost, parameter importance, and the result on other dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diffusion_lab.plots.style import BLACK, BLUE, SKY, VERMILION, tidy

_SCORE = "score [1 = persistence]"
_ROOM = 4.0  # scores shown above the best, in units of the distance from the best to the median


def optimisation_history(ax: Axes, trials: pd.DataFrame) -> None:
    """Draw the score of each trial in order, and the best so far.

    Args:
        trials: columns "trial", "state" ("complete" or "stopped") and "score".
    """
    complete = trials[trials["state"] == "complete"]
    stopped = trials[trials["state"] == "stopped"]
    if len(stopped):
        ax.plot(stopped["trial"] + 1, stopped["score"], "x", color="0.6", markersize=5, label="stopped early")
    ax.plot(complete["trial"] + 1, complete["score"], "o", color=SKY, markersize=5, label="complete")
    best = complete["score"].cummin()
    ax.step(complete["trial"] + 1, best, where="post", color=BLUE, label="best so far")
    _limit(ax, trials["trial"] + 1, trials["score"], complete["score"])
    _finish(ax, "trial", _SCORE)


def pareto_front(ax: Axes, trials: pd.DataFrame, front: pd.DataFrame) -> None:
    """Draw the score of all complete trials against their network calls, and the Pareto front.

    Args:
        trials: columns "state", "score", "calls" and "sampler".
        front: the rows of `trials` on the front, by calls.
    """
    complete = trials[trials["state"] == "complete"]
    ax.plot(complete["calls"], complete["score"], "o", color=SKY, markersize=5, label="complete trials")
    ax.step(front["calls"], front["score"], where="post", color=BLUE)
    ax.plot(front["calls"], front["score"], "o", color=BLUE, markersize=7, label="Pareto front")
    for row in front.itertuples():
        place = (row.calls, row.score)
        ax.annotate(row.sampler, place, (4, 5), textcoords="offset points", fontsize="x-small")
    _limit(ax, complete["calls"], complete["score"], complete["score"])
    _finish(ax, "network calls a forecast step", _SCORE)


def parameter_importance(ax: Axes, importance: Mapping[str, float]) -> None:
    """Draw how much each parameter mattered, the most important on top.

    Args:
        importance: of each parameter, summing to 1; empty if unknown.
    """
    if not importance:
        ax.text(0.5, 0.5, "too few trials to tell", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    names = sorted(importance, key=lambda name: importance[name])
    values = [importance[name] for name in names]
    labels = [name.replace("_", " ") for name in names]
    bars = ax.barh(labels, values, color=SKY, edgecolor=BLUE, linewidth=0.6)
    ax.bar_label(bars, [f"{value:.0%}" for value in values], padding=3, fontsize="small")
    tidy(ax)
    ax.set(xlim=(0, 1.15 * max(values)), xlabel="importance for being among the best tenth")


def paired_differences(
    ax: Axes,
    calls: Sequence[int],
    differences: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    reference: float,
    reference_calls: int,
) -> None:
    """Draw how the scores of settings differ from a reference on the same dates, in per cent.

    Args:
        calls: (setting,) network calls, ascending; the last setting, the result of a search, is marked.
        differences: (setting,) mean difference from the score of the reference; below 0 is better.
        intervals: (setting,) their confidence intervals.
        reference: score of the reference.
        reference_calls: its network calls.
    """
    mean, (low, high) = np.asarray(differences), np.asarray(intervals).T
    bars = 100 / reference * np.stack([mean - low, high - mean])
    ax.axhline(0, color=BLACK, linestyle="--", linewidth=1, label=f"the reference, {reference_calls} calls")
    change = 100 / reference * mean
    ax.errorbar(calls, change, bars, fmt="o", color=BLUE, capsize=3, label="settings, 95 % intervals")
    # Not the lowest of these: choosing by the evaluation dates would bias the result.
    ax.plot(calls[-1], change[-1], "o", color=VERMILION, markersize=8, zorder=3, label="the answer")
    _finish(ax, "network calls a forecast step", "score − that of the reference [%]")


def _finish(ax: Axes, x: str, y: str) -> None:
    tidy(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel=x, ylabel=y)
    ax.legend(frameon=False, fontsize="small")


def _limit(ax: Axes, where: pd.Series, shown: pd.Series, complete: pd.Series) -> None:
    """Limit the axis to the good trials; those far above are marked at the upper edge."""
    if len(complete) < 3:
        return
    best = complete.min()
    top = best + _ROOM * max(complete.median() - best, 1e-9)
    beyond = where[shown > top]
    if len(beyond):
        ax.set_ylim(best - 0.08 * (top - best), top)
        tops = np.full(len(beyond), top)
        ax.plot(beyond, tops, "^", color="0.6", markersize=5, clip_on=False, label="above")
