"""A sampler search: its trials, score against cost, parameter importance, and the result on other dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diffusion_lab.plots.style import BLACK, BLUE, SKY, VERMILION, tidy

_SCORE = "score [1 = persistence]"
_ROOM = 4.0  # how far above the best trials are drawn, in distances from the best to the median


def optimisation_history(ax: Axes, trials: pd.DataFrame) -> None:
    """Draw the score of each trial in its order, and the best so far.

    Args:
        ax: where to draw.
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
    tidy(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("trial")
    ax.set_ylabel(_SCORE)
    ax.legend(frameon=False, fontsize="small")


def pareto_front(ax: Axes, trials: pd.DataFrame, front: pd.DataFrame) -> None:
    """Draw score against network calls of all complete trials, and the front of those that none beats.

    Args:
        ax: where to draw.
        trials: columns "state", "score", "calls" and "sampler".
        front: the rows of `trials` on the front, by calls.
    """
    complete = trials[trials["state"] == "complete"]
    ax.plot(complete["calls"], complete["score"], "o", color=SKY, markersize=5, label="complete trials")
    ax.step(front["calls"], front["score"], where="post", color=BLUE)
    ax.plot(front["calls"], front["score"], "o", color=BLUE, markersize=7, label="Pareto front")
    for row in front.itertuples():
        ax.annotate(
            row.sampler, (row.calls, row.score), (4, 5), textcoords="offset points", fontsize="x-small"
        )
    _limit(ax, complete["calls"], complete["score"], complete["score"])
    tidy(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("network calls a forecast step")
    ax.set_ylabel(_SCORE)
    ax.legend(frameon=False, fontsize="small")


def parameter_importance(ax: Axes, importance: Mapping[str, float]) -> None:
    """Draw how much each parameter mattered, the most important on top.

    Args:
        ax: where to draw.
        importance: parameter → part, of sum 1; empty if it is not known.
    """
    if not importance:
        ax.text(0.5, 0.5, "too few trials to tell", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    names = sorted(importance, key=lambda name: importance[name])
    values = [importance[name] for name in names]
    bars = ax.barh(
        [name.replace("_", " ") for name in names], values, color=SKY, edgecolor=BLUE, linewidth=0.6
    )
    ax.bar_label(bars, [f"{value:.0%}" for value in values], padding=3, fontsize="small")
    tidy(ax)
    ax.set_xlim(0, 1.15 * max(values))
    ax.set_xlabel("part in being among the best tenth")


def paired_differences(
    ax: Axes,
    calls: Sequence[int],
    differences: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    reference: float,
    reference_calls: int,
) -> None:
    """Draw how settings compare with a reference on the same dates, in per cent of its score.

    Args:
        ax: where to draw.
        calls: (setting,) network calls, ascending; the last setting, a search's answer, is marked.
        differences: (setting,) mean difference of the score from the reference's; below 0 is better.
        intervals: (setting,) confidence intervals of these.
        reference: score of the reference.
        reference_calls: its network calls.
    """
    mean, (low, high) = np.asarray(differences), np.asarray(intervals).T
    bars = 100 / reference * np.stack([mean - low, high - mean])
    ax.axhline(0, color=BLACK, linestyle="--", linewidth=1, label=f"the reference, {reference_calls} calls")
    ax.errorbar(
        calls,
        100 / reference * mean,
        bars,
        fmt="o",
        color=BLUE,
        capsize=3,
        label="settings, 95 % intervals",
    )
    # Not the lowest of these: choosing by the evaluation dates would bias the result.
    answer = 100 / reference * mean[-1]
    ax.plot(calls[-1], answer, "o", color=VERMILION, markersize=8, zorder=3, label="the answer")
    tidy(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("network calls a forecast step")
    ax.set_ylabel("score − that of the reference [%]")
    ax.legend(frameon=False, fontsize="small")


def _limit(ax: Axes, where: pd.Series, shown: pd.Series, complete: pd.Series) -> None:
    """Limit the axis to the good trials; those far above are marked at its upper edge."""
    if len(complete) < 3:
        return
    best = complete.min()
    top = best + _ROOM * max(complete.median() - best, 1e-9)
    beyond = where[shown > top]
    if len(beyond):
        ax.set_ylim(best - 0.08 * (top - best), top)
        ax.plot(
            beyond, np.full(len(beyond), top), "^", color="0.6", markersize=5, clip_on=False, label="above"
        )
