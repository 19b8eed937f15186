"""The tuner as one still figure, for scripts, reports and notebooks that no kernel runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_lab.plots import field_map
from diffusion_lab.plots.style import DIFFERENCE, FIELD, SPREAD, label
from diffusion_lab.stores.dates import lead_name
from diffusion_lab.widgets.tuner import charts
from diffusion_lab.widgets.tuner.pictures import colour_scale, field_colours, summaries
from diffusion_lab.widgets.tuner.result import Result
from diffusion_lab.widgets.tuner.setting import Setting


def still(
    schedules: Mapping[str, tuple[Setting, NDArray]],
    results: Mapping[str, Result],
    beside: str,
    variable: str,
    lead: int,
    member: int,
) -> Figure:
    """Maps of truth, a member, a glimpse of its film, mean, error and spread; below them the charts.

    Args:
        schedules: levels by name, the present setting first.
        results: the present one first; empty if there is none, which leaves the schedule alone.
        beside: name of the pinned result whose maps are shown, too.
        variable: shown.
        lead: number of the forecast step shown.
        member: shown.
    """
    if not results:
        figure = Figure(figsize=(4, 3), layout="constrained")
        _draw(figure.subplots(), charts.dress_schedule, charts.schedule, schedules)
        return figure
    result, *pins = results.values()
    scale = colour_scale(pins[0] if pins else result, variable, lead)
    rows = [_one_member(result, variable, lead, member), _ensemble(result, variable, lead, scale)]
    if beside in results and variable in results[beside].variables:
        rows.append(_ensemble(results[beside], variable, lead, scale, f"{beside}: "))
    figure = Figure(figsize=(11, 2.4 + 2.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows) + 1, 3, height_ratios=(*(1 for _ in rows), 1.15))
    for ax, drawn in zip(axes[:-1].flat, chain(*rows), strict=True):
        _map(ax, result, *drawn)
    _draw(axes[-1, 0], charts.dress_schedule, charts.schedule, schedules)
    _draw(axes[-1, 1], charts.dress_ranks, charts.ranks, results, variable, lead)
    _draw(axes[-1, 2], charts.dress_spectrum, charts.spectrum, results, variable, lead)
    lead = min(lead, result.setting.steps)
    setting, scores = result.setting, result.scores(variable, lead)
    figure.suptitle(
        f"{label(variable, result.units(variable))}, {lead_name(lead * result.forecaster.step)} after "
        f"{setting.date} UTC · {setting.sampler}, {result.calls} network calls · "
        f"fair CRPS {scores['fair_crps']:.4g}, RMSE {scores['rmse']:.4g}, "
        f"spread / skill {scores['spread_skill']:.2f}",
        fontsize="medium",
    )
    return figure


def _draw(ax: Axes, dress: Callable[[Axes], None], fill: Callable[..., None], *shown: Any) -> None:
    dress(ax)
    fill(ax, *shown)


Drawn = tuple[str, NDArray, str, tuple[float, float]]
"""Title, field, colour map and its limits."""


def _map(
    ax: Axes, result: Result, title: str, field: NDArray, cmap: str, limits: tuple[float, float]
) -> None:
    ax.set_title(title, fontsize="small")
    if not np.isfinite(field).any():
        ax.text(0.5, 0.5, "unknown", ha="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    forecaster = result.forecaster
    place = forecaster.latitudes, forecaster.longitudes, forecaster.release.field_shape
    artist = field_map(ax, field, *place, land=result.place.land, cmap=cmap, limits=limits)
    ax.figure.colorbar(artist, ax=ax, aspect=14, shrink=0.85).ax.tick_params(labelsize="x-small")


def _one_member(result: Result, variable: str, lead: int, member: int) -> list[Drawn]:
    lead, member = min(lead, result.setting.steps), min(member, len(result.members) - 1)
    colours = field_colours(result, variable, lead)
    watched, film = result.film(member, variable, lead)
    glimpse = len(film) // 2
    sigma = result.setting.sampling(result.forecaster).sigmas()[glimpse]
    return [
        ("truth", result.true_field(variable, lead), FIELD, colours),
        (f"member {result.members[member]}", result.fields(variable, lead)[member], FIELD, colours),
        (f"D(y; σ = {sigma:.3g}), member {watched}", film[glimpse], FIELD, colours),
    ]


def _ensemble(
    result: Result, variable: str, lead: int, scale: tuple[float, float], name: str = ""
) -> list[Drawn]:
    lead = min(lead, result.setting.steps)
    mean, error, spread = summaries(result, variable, lead)
    return [
        (f"{name}ensemble mean", mean, FIELD, field_colours(result, variable, lead)),
        (f"{name}mean − truth", error, DIFFERENCE, (-scale[0], scale[0])),
        (f"{name}spread", spread, SPREAD, (0.0, scale[1])),
    ]
