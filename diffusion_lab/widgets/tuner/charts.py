"""The tuner's charts: schedule and churn, rank histogram, spectrum; pinned settings beside the present.

Each has its axes, `dress_…`, and what is drawn on them. Limits are rounded, so that a changed setting moves
the curve and not the axis under it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from diffusion_lab.plots.style import LINES, SKY, level_axis, tidy
from diffusion_lab.samplers.churn import GAMMA_MAX
from diffusion_lab.widgets.tuner.result import Result
from diffusion_lab.widgets.tuner.setting import Setting

_SMALL = 7.5
_DARK, _LIGHT = "#d8d8d8", "#222222"


def colour(number: int) -> str:
    """The colour of the present setting, 0, or of a pinned one, from 1."""
    return LINES[number % len(LINES)]


def dress_schedule(ax: Axes) -> None:
    """Axes of `schedule`."""
    level_axis(ax.yaxis)
    _dress(ax, "solver step", "noise level σ [–]")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))


def schedule(ax: Axes, schedules: Mapping[str, tuple[Setting, NDArray]]) -> None:
    """σ at each solver step; rings in the setting's colour mark where churn raises it."""
    for number, (name, (setting, sigmas)) in reversed(list(enumerate(schedules.items()))):
        levels = np.asarray(sigmas)[:-1]
        width = 1.4 if number == 0 else 0.9
        ax.plot(levels, ".-", color=colour(number), lw=width, ms=4, label=name, zorder=3 - number)
        churned = _mark_churn(ax, setting, levels, colour(number))
    ax.set_title(churned, fontsize=_SMALL + 0.5, y=1.0)  # of the present setting, drawn last
    drawn = [np.asarray(sigmas)[:-1] for _, sigmas in schedules.values()]
    ax.set_xlim(-0.5, max(len(levels) for levels in drawn) - 0.5)
    ax.set_ylim(*_around(min(levels.min() for levels in drawn), max(levels.max() for levels in drawn)))
    if len(schedules) > 1:
        _legend(ax)


def _around(low: float, high: float) -> tuple[float, float]:
    """Limits among 1, 3, 10, 30, … with a little room beside them."""
    rounds = sorted(m * 10.0**k for k in range(-6, 7) for m in (1, 3))
    return max(r for r in rounds if r < 0.9 * low), min(r for r in rounds if r > 1.1 * high)


def _mark_churn(ax: Axes, setting: Setting, levels: NDArray, ink: str) -> str:
    churn = setting.predict_kwargs["sampler_params"].get("S_churn", 0.0)
    gamma = min(churn / len(levels), GAMMA_MAX)
    acts = (levels >= setting.S_min) & (levels <= setting.S_max)
    if gamma == 0 or not acts.any():
        return "noise schedule, no churn"
    steps = np.flatnonzero(acts)
    ax.vlines(steps, levels[acts], levels[acts] * (1 + gamma), color=ink, lw=1.2)
    ax.plot(steps, levels[acts] * (1 + gamma), "o", color=ink, ms=3.2, mfc="none")
    return f"churn in {len(steps)} of {len(levels)} steps, γ = {gamma:.3g}"


def dress_ranks(ax: Axes) -> None:
    """Axes of `ranks`."""
    ax.set_xlim(0, 1)
    ax.set_title("rank histogram", fontsize=_SMALL + 0.5, y=1.0)
    _dress(ax, "rank of the truth / members", "frequency / flat")


def ranks(ax: Axes, results: Mapping[str, Result], variable: str, lead: int) -> None:
    """How often the truth takes each rank, over a flat histogram's; pinned ones as lines."""
    highest = 1.0
    for number, (name, result) in enumerate(results.items()):
        if lead > result.setting.steps or len(result.members) < 2:
            continue
        frequency = result.ranks(variable, lead)
        highest = max(highest, np.nan_to_num(frequency).max() * len(frequency))
        share = (np.arange(len(frequency)) + 0.5) / len(frequency)  # ensembles of any size over one another
        if number == 0:
            ax.bar(share, frequency * len(frequency), 0.94 / len(frequency), color=SKY, label=name)
        else:
            ax.plot(share, frequency * len(frequency), ".-", color=colour(number), lw=1, ms=4, label=name)
    ax.axhline(1, color="0.5", ls="--", lw=0.8)
    ax.set_ylim(0, next((top for top in (2, 3, 4, 6, 8, 12, 16, 24, 32) if 0.96 * top > highest), 60))
    if len(results) > 1:
        _legend(ax)


def dress_spectrum(ax: Axes) -> None:
    """Axes of `spectrum`."""
    ax.set_title("power of the members / truth", fontsize=_SMALL + 0.5, y=1.0)
    ax.set_yscale("log")
    _show_ratios(ax, 3.0)
    _dress(ax, "total wavenumber", "ratio [–]")


def _show_ratios(ax: Axes, most: float) -> None:
    ax.set_ylim(1 / most, most)
    ticks = [0.5, 1, 2] if most == 3 else [2 / most, 1, most / 2]
    ax.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    ax.minorticks_off()


def spectrum(ax: Axes, results: Mapping[str, Result], variable: str, lead: int) -> None:
    """Mean power of the members over that of the truth, by wavenumber: 1 where there is as much weather."""
    furthest = 1.0
    for number, (name, result) in enumerate(results.items()):
        if lead > result.setting.steps:
            continue
        spectra = result.spectra(variable, lead)
        if spectra is None:
            ax.text(0.5, 0.5, "a limited area\nhas no spectrum", ha="center", transform=ax.transAxes)
            break
        wavenumbers, members, truth = spectra
        ax.plot(
            wavenumbers, members / truth, color=colour(number), lw=1.4 if number == 0 else 0.9, label=name
        )
        ax.set_xlim(0, wavenumbers[-1] + 1)
        furthest = max(furthest, float(np.nanmax(np.exp(np.abs(np.log(members / truth))), initial=1.0)))
    _show_ratios(ax, next((most for most in (3, 10, 100, 1e4) if furthest < most), 1e8))
    ax.axhline(1, color="0.5", ls="--", lw=0.8)
    if len(results) > 1:
        _legend(ax)


def _dress(ax: Axes, below: str, left: str) -> None:
    tidy(ax)
    ax.grid(color="0.5", alpha=0.25, linewidth=0.6)
    ax.set_xlabel(below, fontsize=_SMALL)
    ax.set_ylabel(left, fontsize=_SMALL)
    ax.tick_params(labelsize=_SMALL, length=2, which="both")


def _legend(ax: Axes) -> None:
    ax.legend(frameon=False, fontsize=_SMALL - 0.5, handlelength=1.2)


def tint(ax: Axes, dark: bool) -> None:
    """Text and axes for a light or a dark page, on which the figure lies without a ground of its own."""
    ink = _DARK if dark else _LIGHT
    ax.figure.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    ax.tick_params(colors=ink, which="both")
    legend = ax.get_legend()
    for text in (
        ax.title,
        ax.xaxis.label,
        ax.yaxis.label,
        *ax.texts,
        *(legend.get_texts() if legend else ()),
    ):
        text.set_color(ink)
    for spine in ax.spines.values():
        spine.set_color(ink)
