"""Forecasts as labelled data with CF names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffusion_lab.inference.trained import TrainedModel

if TYPE_CHECKING:
    import xarray as xr

# CF standard names (version 85) of the usual parameters; a trailing number is a pressure level in hPa.
CF_NAMES = {
    "z": "geopotential",
    "t": "air_temperature",
    "u": "eastward_wind",
    "v": "northward_wind",
    "w": "lagrangian_tendency_of_air_pressure",
    "q": "specific_humidity",
    "r": "relative_humidity",
    "msl": "air_pressure_at_mean_sea_level",
    "sp": "surface_air_pressure",
    "2t": "air_temperature",
    "10u": "eastward_wind",
    "10v": "northward_wind",
    "tp": "lwe_thickness_of_precipitation_amount",  # ECMWF's, in m
}


def forecast_dataset(
    trained: TrainedModel,
    date: np.datetime64,
    members: Sequence[int],
    states: np.ndarray,
    first_step: int = 1,
) -> xr.Dataset:
    """Label the states of a forecast.

    Args:
        trained: the model that made it.
        date: the start.
        members: (ensemble,) member numbers.
        states: (step, ensemble, cell, output variable), physical units.
        first_step: number of the first of these steps.

    Returns:
        Dataset with dims (time, ensemble, cell).
    """
    import xarray as xr

    leads = (first_step + np.arange(len(states))) * trained.step
    info = {v.name: v for v in trained.release.variables}
    fields, reference = {}, "forecast_reference_time"
    for i, name in enumerate(trained.variables.output):
        attributes = {"long_name": info[name].long_name or name} | cf_attributes(name)
        if info[name].units:  # without them it is unknown, not dimensionless
            attributes["units"] = info[name].units
        fields[name] = (("time", "ensemble", "cell"), states[..., i], attributes)
    coordinates = {
        "time": ("time", (date + leads).astype("datetime64[ns]"), {"standard_name": "time"}),
        "lead_time": ("time", leads.astype("timedelta64[ns]"), {"standard_name": "forecast_period"}),
        "ensemble": ("ensemble", np.asarray(members), {"standard_name": "realization"}),
        "latitude": ("cell", trained.latitudes, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("cell", trained.longitudes, {"units": "degrees_east", "standard_name": "longitude"}),
        reference: ((), date.astype("datetime64[ns]"), {"standard_name": reference}),
    }
    about = {"Conventions": "CF-1.11", "field_shape": list(trained.release.field_shape)}
    return xr.Dataset(fields, coordinates, about)


def cf_attributes(name: str) -> dict[str, str]:
    """The CF standard name of a variable such as "z500" or "msl", if known."""
    prefix = name if name in CF_NAMES else re.sub(r"_?\d+$", "", name)
    return {"standard_name": CF_NAMES[prefix]} if prefix in CF_NAMES else {}
