"""Ensemble forecasts against the truth."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffusion_lab.graphs.sphere import to_unit_vectors
from diffusion_lab.plots.maps import field_map
from diffusion_lab.plots.style import (
    BLACK,
    BLUE,
    DIFFERENCE,
    FIELD,
    SKY,
    SPREAD,
    in_days,
    label,
    lead_time_axis,
    tidy,
)
from diffusion_lab.verification import by_lead_time, format_lead_time


def plume(ax: Axes, forecast: xr.DataArray, truth: xr.DataArray | None = None) -> None:
    """Draw the members, their mean and the truth at one place against lead time.

    Args:
        forecast: one variable, of dimensions `ensemble` and `lead_time` (or `time`, with the coordinate
            `lead_time`); select a cell with `.isel(cell=nearest_cell(...))`, or average over cells.
        truth: (lead_time,) or (time,), which may end earlier.

    Raises:
        ValueError: if the forecast has other dimensions.
    """
    along = forecast["lead_time"].dims[0]
    if set(forecast.dims) != {along, "ensemble"}:
        raise ValueError(
            f"a plume needs the dimensions {along!r} and 'ensemble', not {forecast.dims}; select a start "
            "and a cell, or average over cells"
        )
    members = forecast.transpose(along, "ensemble")
    days = in_days(members["lead_time"].values)
    lower, upper = np.quantile(members.values, [0.1, 0.9], axis=1)
    ax.fill_between(days, lower, upper, color=SKY, alpha=0.35, linewidth=0, label="10–90 %")
    ax.plot(days, members.values, color=BLUE, linewidth=0.5, alpha=0.5)
    ax.plot(days, members.mean("ensemble").values, color=BLUE, linewidth=2.2, label="mean")
    if truth is not None:
        ax.plot(in_days(truth["lead_time"].values), truth.values, color=BLACK, linewidth=1.8, label="truth")
    tidy(ax)
    lead_time_axis(ax)
    ax.margins(x=0.01)
    ax.set_ylabel(label(str(forecast.name), forecast.attrs.get("units", "1")))
    ax.legend(frameon=False, fontsize="small", ncols=3)


def nearest_cell(forecast: xr.Dataset | xr.DataArray, latitude: float, longitude: float) -> int:
    """Index of the cell nearest to a place given in degrees north and east."""
    cells = to_unit_vectors(forecast["latitude"].values, forecast["longitude"].values)
    return int((cells @ to_unit_vectors(latitude, longitude)).argmax())


def forecast_panel(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    variable: str,
    *,
    lead_time: np.timedelta64,
    start: int = 0,
    member: int = 0,
    land: ArrayLike | None = None,
) -> Figure:
    """Map one variable at one lead time: truth, ensemble mean and its error; two members and the spread.

    Truth, mean and members share a colour scale; that of the error is symmetric.

    Args:
        forecast: (start, lead_time, ensemble, cell) or (time, ensemble, cell), of two members or more.
        truth: the same dimensions without `ensemble`.
        variable: its name.
        lead_time: such as `np.timedelta64(5, "D")`.
        start: index of the start.
        member: index of the first member shown, beside the next.
        land: (cell,) land fraction for coastlines.

    Raises:
        KeyError: if the variable or the lead time is not in the forecast.
    """
    fields = by_lead_time(forecast)[variable].isel(start=start).sel(lead_time=lead_time)
    fields = fields.transpose("ensemble", "cell")
    true = by_lead_time(truth)[variable].isel(start=start).sel(lead_time=lead_time).values
    mean, spread = fields.mean("ensemble").values, fields.std("ensemble", ddof=1).values
    second = (member + 1) % len(fields)
    limits = (float(np.nanmin([true.min(), mean.min()])), float(np.nanmax([true.max(), mean.max()])))
    largest = float(np.nanmax(np.abs(mean - true)))

    figure = Figure(figsize=(13, 4.4), layout="compressed")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    pictures = [
        ("truth", true, FIELD, limits),
        ("ensemble mean", mean, FIELD, limits),
        ("mean − truth", mean - true, DIFFERENCE, (-largest, largest)),
        (f"member {member}", fields[member].values, FIELD, limits),
        (f"member {second}", fields[second].values, FIELD, limits),
        ("spread", spread, SPREAD, (0.0, float(np.nanmax(spread)))),
    ]
    artists = []
    grid = (forecast["latitude"], forecast["longitude"], forecast.attrs.get("field_shape"))
    for ax, (title, field, cmap, colours) in zip(axes.flat, pictures, strict=True):
        artists.append(field_map(ax, field, *grid, land=land, cmap=cmap, limits=colours))
        ax.set_title(title, fontsize="medium")
    units = label(variable, fields.attrs.get("units", "1"))
    figure.colorbar(artists[0], ax=axes[:, 1], aspect=40, label=units)
    for row, artist in enumerate(artists[2::3]):
        figure.colorbar(artist, ax=axes[row, 2], label=units)
    reference = np.datetime_as_string(fields["forecast_reference_time"].values, unit="h")
    figure.suptitle(
        f"{fields.attrs.get('long_name', variable)}, {format_lead_time(lead_time)} after {reference} UTC"
    )
    return figure
