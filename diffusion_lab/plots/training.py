"""Training curves and noise schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from diffusion_lab.plots.style import BLACK, LINES, YELLOW, level_axis, tidy


def training_curves(
    ax: Axes, steps: ArrayLike, loss: ArrayLike, by_level: Mapping[str, ArrayLike] | None = None
) -> None:
    """Draw the loss against the training step, and the loss in each bin of noise levels.

    Args:
        steps: (N,) optimiser steps.
        loss: (N,) weighted loss; NaN where it was not logged.
        by_level: (N,) loss in each bin, by label from the lowest to the highest noise level.
    """
    steps = np.asarray(steps)
    by_level = by_level or {}
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(1, len(by_level))))
    for (name, values), colour in zip(by_level.items(), colours, strict=False):
        _line_without_gaps(ax, steps, values, color=colour, linewidth=1, label=name)
    _line_without_gaps(ax, steps, loss, color=BLACK, linewidth=2, label="all levels")
    tidy(ax)
    ax.set_yscale("log")
    # Losses fall from 1 by less than a decade: plain numbers, several in each.
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="optimiser step", ylabel="weighted loss [–]")
    ax.legend(frameon=False, fontsize="small", title="noise level σ" if by_level else None)


def noise_schedule(
    ax: Axes, schedules: Mapping[str, Sequence[float]], churn: tuple[float, float] | None = None
) -> None:
    """Draw the noise level against the solver step, for one schedule or several.

    Args:
        schedules: (N + 1,) decreasing levels by name; the last, 0, is drawn at the bottom of the axis.
        churn: S_min and S_max, the levels between which a stochastic sampler adds noise.
    """
    levels = {name: np.asarray(sigmas, np.float64) for name, sigmas in schedules.items()}
    smallest = min(sigmas[sigmas > 0].min() for sigmas in levels.values())
    largest = max(sigmas.max() for sigmas in levels.values())
    foot = smallest / 3
    if churn is not None:
        low, high = max(churn[0], foot), min(churn[1], 2 * largest)
        ax.axhspan(low, high, color=YELLOW, alpha=0.3, label="churn", lw=0)
    for (name, sigmas), colour in zip(levels.items(), cycle(LINES), strict=False):
        shown = np.where(sigmas > 0, sigmas, foot)
        ax.plot(shown, color=colour, marker="o", markersize=3.5, label=name, clip_on=False)
    tidy(ax)
    level_axis(ax.yaxis)
    ax.set(ylim=(foot, 2 * largest), xlabel="solver step")
    ax.legend(frameon=False, fontsize="small")


def _line_without_gaps(ax: Axes, steps: NDArray[Any], values: ArrayLike, **style: Any) -> None:
    numbers = np.asarray(values, np.float64)
    logged = np.isfinite(numbers)
    ax.plot(steps[logged], numbers[logged], **style)
