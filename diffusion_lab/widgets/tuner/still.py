"""The tuner as one still figure, for scripts, reports and notebooks that no kernel runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_lab.plots import field_map
from diffusion_lab.plots.style import DIFFERENCE, FIELD, SPREAD, label
from diffusion_lab.stores.dates import lead_name
from diffusion_lab.widgets.tuner import charts
from diffusion_lab.widgets.tuner.pictures import field_limits
from diffusion_lab.widgets.tuner.result import Result
from diffusion_lab.widgets.tuner.setting import Setting


def still(
    schedules: Mapping[str, tuple[Setting, np.ndarray]],
    results: Mapping[str, Result],
    variable: str,
    lead: int,
    member: int,
) -> Figure:
    """Maps of truth, mean, error, a member, the spread and a glimpse of the film; below them the charts.

    Args:
        schedules: levels by name, the present setting first.
        results: the present one first; empty if there is none, which leaves the schedule alone.
        variable: shown.
        lead: number of the forecast step shown.
        member: shown.
    """
    if not results:
        figure = Figure(figsize=(4, 3), layout="constrained")
        _draw(figure.subplots(), charts.dress_schedule, charts.schedule, schedules)
        return figure
    result = next(iter(results.values()))
    lead, member = min(lead, result.setting.steps), min(member, len(result.members) - 1)
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots(3, 3, height_ratios=(1, 1, 1.15))
    for ax, (title, field, cmap, limits) in zip(
        axes[:2].flat, _maps(result, variable, lead, member), strict=True
    ):
        place = (
            result.forecaster.latitudes,
            result.forecaster.longitudes,
            result.forecaster.release.field_shape,
        )
        if not np.isfinite(field).any():
            ax.text(0.5, 0.5, "unknown", ha="center", transform=ax.transAxes)
            ax.set_axis_off()
        else:
            artist = field_map(ax, field, *place, land=result.place.land, cmap=cmap, limits=limits)
            figure.colorbar(artist, ax=ax, aspect=14, shrink=0.85).ax.tick_params(labelsize="x-small")
        ax.set_title(title, fontsize="small")
    _draw(axes[2, 0], charts.dress_schedule, charts.schedule, schedules)
    _draw(axes[2, 1], charts.dress_ranks, charts.ranks, results, variable, lead)
    _draw(axes[2, 2], charts.dress_spectrum, charts.spectrum, results, variable, lead)
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


def _maps(result: Result, variable: str, lead: int, member: int) -> list[tuple]:
    fields, truth = result.fields(variable, lead), result.true_field(variable, lead)
    mean = fields.mean(0)
    colours = field_limits(truth if np.isfinite(truth).any() else mean)
    spread = fields.std(0, ddof=1) if len(fields) > 1 else np.full_like(mean, np.nan)
    error = mean - truth
    most = float(np.nanmax(np.abs(error))) if np.isfinite(error).any() else 1.0
    film = result.film[lead - 1, ..., result.variables.index(variable)]
    glimpse = len(film) // 2
    sigma = result.setting.sampling(result.forecaster).sigmas()[glimpse]
    return [
        ("truth", truth, FIELD, colours),
        ("ensemble mean", mean, FIELD, colours),
        ("mean − truth", error, DIFFERENCE, (-most, most)),
        (f"member {result.members[member]}", fields[member], FIELD, colours),
        ("spread", spread, SPREAD, (0.0, float(spread.max()))),
        (f"D(y; σ = {sigma:.3g}), member 0", film[glimpse], FIELD, colours),
    ]
