"""Colours, units and axes shared by all plots.

Lines use the Okabe-Ito palette and fields perceptually uniform maps, which colour-blind readers can
distinguish (Okabe & Ito 2008; Crameri et al. 2020, doi:10.1038/s41467-020-19160-7).
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from diffusion_lab.stores.units import pretty_units

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
LINES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
BASELINES = {"persistence": VERMILION, "climatology": GREEN}

FIELD, SPREAD, DIFFERENCE = "viridis", "BuPu", "RdBu_r"


def label(name: str, units: str) -> str:
    """An axis label: "t850 [K]"."""
    return f"{name} [{pretty_units(units)}]"


def in_days(lead_time: NDArray[np.timedelta64]) -> NDArray[np.float64]:
    """Lead times in days."""
    return np.asarray(lead_time) / np.timedelta64(1, "D")


def lead_time_axis(ax: Axes) -> None:
    """Label the horizontal axis as the lead time in days."""
    ax.set_xlabel("lead time [days]")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def level_axis(axis: Axis) -> None:
    """Make an axis of noise levels: logarithmic, in plain numbers, without minor ticks (slow to draw)."""
    (axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text("noise level σ [–]")


def tidy(ax: Axes) -> None:
    """Draw a faint grid and no box."""
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def degree_axes(ax: Axes) -> None:
    """Tick the axes of a map in degrees east or west, north or south."""
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 3, 5, 6, 10]))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 3, 5, 6, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: degrees((x + 180) % 360 - 180, "E", "W")))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: degrees(y, "N", "S")))
    ax.tick_params(labelsize="x-small", length=2, color="0.4")


def degrees(value: float, positive: str, negative: str) -> str:
    """A latitude or a longitude as on a map: "50°N", "120°W", "0°"."""
    side = "" if value in (0, -180) else positive if value > 0 else negative
    return f"{abs(value):g}°{side}"
