"""Scores of a forecast against lead time, rank, wavenumber and probability."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from diffusion_lab.plots.style import BASELINES, BLACK, BLUE, LINES, SKY, in_days, label, lead_time_axis, tidy
from diffusion_lab.stores.units import pretty_units
from diffusion_lab.verification import format_lead_time
from diffusion_lab.verification.events import roc_curve
from diffusion_lab.verification.summary import names_of_baselines

_NAMES = {
    "fair_crps": "fair CRPS",
    "rmse": "RMSE of the mean",
    "spread": "spread",
    "spread_skill": "spread-skill ratio",
    "bias": "bias of the mean",
    "energy_score": "energy score",
    "anomaly_correlation": "anomaly correlation",
}
_WITHOUT_UNITS = ("spread_skill", "anomaly_correlation")


def rank_histogram(ax: Axes, frequencies: ArrayLike, interval: ArrayLike | None = None) -> None:
    """Draw how often the truth takes each rank among the members, relative to a flat histogram.

    A U shape indicates too little spread, a dome too much, a slope a bias.

    Args:
        frequencies: (M + 1,) relative frequency of each rank, `rank_histogram` of the scores.
        interval: (2, M + 1) its confidence interval.
    """
    frequencies = np.asarray(frequencies)
    ranks = np.arange(1, len(frequencies) + 1)
    ax.bar(ranks, frequencies * len(ranks), width=0.92, color=SKY, edgecolor=BLUE, linewidth=0.6)
    if interval is not None:
        ax.vlines(ranks, *(np.asarray(interval) * len(ranks)), color=BLUE, linewidth=1.4)
    ax.axhline(1.0, color=BLACK, linestyle="--", linewidth=1)
    tidy(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlim=(0.4, len(ranks) + 0.6), ylabel="frequency / that of a flat histogram")
    ax.set_xlabel(f"rank of the truth among {len(ranks) - 1} members")


def score_vs_lead(ax: Axes, scores: xr.Dataset, variable: str, score: str = "fair_crps") -> None:
    """Draw a score of one variable against lead time, with its confidence interval and the baselines.

    The CRPS is compared with the mean absolute error of deterministic baselines, the RMSE with the spread.

    Args:
        variable: its name.
        score: "fair_crps", "rmse", "spread", "spread_skill", "bias", "energy_score", "anomaly_correlation".

    Raises:
        KeyError: if `score` is none of these.
    """
    if score not in _NAMES:
        raise KeyError(f"unknown score {score!r}; choose one of {sorted(_NAMES)}")
    chosen = scores.sel(variable=variable)
    days = in_days(chosen["lead_time"].values)
    if f"{score}_interval" in chosen:
        ax.fill_between(days, *chosen[f"{score}_interval"].values, color=SKY, alpha=0.35, linewidth=0)
    ax.plot(days, chosen[score], color=BLUE, marker="o", markersize=4, label=_NAMES[score])
    if score == "rmse":
        ax.plot(days, chosen["spread"], color=BLUE, linestyle="--", label=_NAMES["spread"])
    for number, name in enumerate(names_of_baselines(scores)):
        for suffix in {"fair_crps": ("mae", "fair_crps"), "rmse": ("rmse",)}.get(score, ()):
            if f"{name}_{suffix}" in chosen:
                text = name.replace("_", " ") + (" (MAE)" if suffix == "mae" else "")
                colour = BASELINES.get(name, LINES[(number + 1) % len(LINES)])
                ax.plot(days, chosen[f"{name}_{suffix}"], color=colour, label=text)
    if score in ("spread_skill", "bias"):
        ax.axhline(float(score == "spread_skill"), color=BLACK, linestyle="--", linewidth=1)
    else:
        ax.set_ylim(bottom=0)
    tidy(ax)
    lead_time_axis(ax)
    units = "1" if score in _WITHOUT_UNITS else chosen["units"].item()
    ax.set_ylabel(label(f"{variable} {_NAMES[score]}" if score in _WITHOUT_UNITS else variable, units))
    if len(ax.get_legend_handles_labels()[0]) > 1:
        ax.set_ylim(0, 1.35 * ax.get_ylim()[1])  # room for the legend
    ax.legend(frameon=False, fontsize="small", ncols=2, columnspacing=1.0, handlelength=1.5)


def spread_skill(ax: Axes, scores: xr.Dataset) -> None:
    """Draw the spread-skill ratio of all variables against lead time; below 1 is overconfident."""
    days = in_days(scores["lead_time"].values)
    ax.axhspan(0.9, 1.1, color="0.93", linewidth=0)
    ax.axhline(1.0, color=BLACK, linestyle="--", linewidth=1)
    for variable, colour in zip(scores["variable"].values, cycle(LINES), strict=False):
        chosen = scores.sel(variable=variable)
        if "spread_skill_interval" in chosen:
            bounds = chosen["spread_skill_interval"].values
            ax.fill_between(days, *bounds, color=colour, alpha=0.12, linewidth=0)
        ax.plot(days, chosen["spread_skill"], color=colour, marker="o", markersize=3.5, label=str(variable))
    tidy(ax)
    lead_time_axis(ax)
    ax.set_ylabel("spread-skill ratio [–]")
    ax.legend(frameon=False, fontsize="small", ncols=2)


def spectra(ax: Axes, scores: xr.Dataset, variable: str, lead_time: np.timedelta64) -> None:
    """Draw the power of truth, members and ensemble mean against total wavenumber at one lead time.

    Members should have the power of the truth at each scale; their mean rightly has less.
    """
    chosen = scores.sel(variable=variable, lead_time=lead_time).isel(wavenumber=slice(1, None))
    number = chosen["wavenumber"].values
    ax.plot(number, chosen["truth_power"], color=BLACK, linewidth=2, label="truth")
    ax.fill_between(number, *chosen["power_interval"].values, color=SKY, alpha=0.35, linewidth=0)
    ax.plot(number, chosen["power"], color=BLUE, label="members")
    ax.plot(number, chosen["mean_power"], color=BLUE, linestyle=":", label="ensemble mean")
    ax.set(xscale="log", yscale="log")
    _wavenumber_axis(ax)
    ax.set_ylabel(f"power of {variable} [{pretty_units(_squared(chosen['units'].item()))}]")
    ax.legend(frameon=False, fontsize="small")


def spectra_ratio(ax: Axes, scores: xr.Dataset, lead_time: np.timedelta64) -> None:
    """Draw the power of members over that of the truth at one lead time, for all variables; 1 is ideal."""
    chosen = scores.sel(lead_time=lead_time).isel(wavenumber=slice(1, None))
    ax.axhspan(0.8, 1.2, color="0.93", linewidth=0)
    ax.axhline(1.0, color=BLACK, linestyle="--", linewidth=1)
    for variable, colour in zip(chosen["variable"].values, cycle(LINES), strict=False):
        ratio = chosen["power_ratio"].sel(variable=variable)
        ax.plot(chosen["wavenumber"], ratio, color=colour, marker="o", markersize=3, label=str(variable))
        beyond = chosen["wavenumber"][ratio.values > 2]  # the axis, which would hide them
        ax.plot(beyond, np.full(len(beyond), 1.95), "^", color=colour, markersize=6)
    ax.set(xscale="log", ylim=(0, 2))
    _wavenumber_axis(ax)
    ax.set_ylabel("power of members / power of truth [–]")
    ax.legend(frameon=False, fontsize="small", ncols=2)


def reliability(ax: Axes, share: xr.DataArray, happened: xr.DataArray, name: str = "event") -> None:
    """Draw the observed frequency of an event against its forecast probability.

    A reliable forecast follows the diagonal. The size of a point shows its share of the forecasts.

    Args:
        share: (count,) how often k = 0 … M members forecast it, `event_share` of the scores.
        happened: (count,) how often they do and it happens, `event_happened`.
        name: of the event, for the legend.
    """
    shares, hits = share.values, happened.values
    probability = np.arange(len(shares)) / (len(shares) - 1)
    seen = shares > 0
    frequency = hits[seen] / shares[seen]
    ax.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1)
    ax.axhline(hits.sum(), color="0.6", linewidth=1)
    colour = LINES[len(ax.collections) % len(LINES)]
    ax.plot(probability[seen], frequency, color=colour, linewidth=1.2, label=name)
    ax.scatter(probability[seen], frequency, s=8 + 250 * shares[seen], color=colour, alpha=0.8, linewidths=0)
    _unit_square(ax, "forecast probability [–]", "observed frequency [–]", "upper left")


def roc(ax: Axes, share: xr.DataArray, happened: xr.DataArray, name: str = "event") -> None:
    """Draw hit rate against false alarm rate if one acts on at least k members; the diagonal has no skill.

    Arguments as `reliability`.
    """
    hits, false_alarms = roc_curve(share, happened)
    colour = LINES[(len(ax.lines) // 2) % len(LINES)]
    ax.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1)
    ax.plot(false_alarms, hits, color=colour, marker="o", markersize=3, label=name)
    _unit_square(ax, "false alarm rate [–]", "hit rate [–]", "lower right")


def scorecard(ax: Axes, scores: xr.Dataset, baseline: str) -> None:
    """Draw the CRPS skill against a baseline such as "deterministic" in per cent, by variable and lead time.

    Blue is better than the baseline, red worse; the confidence interval of numbers in bold excludes 0.
    """
    skill = 100 * scores[f"{baseline}_crpss"].transpose("variable", "lead_time").values
    interval = scores[f"{baseline}_crpss_interval"].transpose("bound", "variable", "lead_time").values
    clear = np.logical_or((interval > 0).all(axis=0), (interval < 0).all(axis=0))
    ax.imshow(skill, cmap="RdBu", norm=TwoSlopeNorm(0, -100, 100), aspect="auto")
    middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small"}
    for (row, column), value in np.ndenumerate(skill):
        colour, weight = "white" if abs(value) > 65 else BLACK, "bold" if clear[row, column] else "normal"
        ax.text(column, row, f"{value:+.0f}".replace("-", "−"), color=colour, weight=weight, **middle)
    ax.set_yticks(range(len(skill)), scores["variable"].values)
    ax.set_xticks(range(skill.shape[1]), map(format_lead_time, scores["lead_time"].values))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("lead time")
    ax.set_title(f"CRPS skill against {baseline.replace('_', ' ')} [%]", fontsize="medium")


def _unit_square(ax: Axes, x: str, y: str, legend: Literal["upper left", "lower right"]) -> None:
    tidy(ax)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=x, ylabel=y)
    ax.legend(frameon=False, fontsize="small", loc=legend)


def _squared(units: str) -> str:
    """The square of CF units: "m4 s-4" for "m2 s-2"."""

    def part(unit: str) -> str:
        name = unit.rstrip("-0123456789")
        return f"{name}{2 * int(unit[len(name) :] or 1)}"

    return "1" if units in ("", "1") else " ".join(part(unit) for unit in units.split())


def _wavenumber_axis(ax: Axes) -> None:
    tidy(ax)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    ax.set_xticks([number for number in (1, 2, 5, 10, 20, 50) if number <= ax.get_xlim()[1]])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("total wavenumber")
