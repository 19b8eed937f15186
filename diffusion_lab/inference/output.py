"""Forecasts as labelled data: CF names, units, and files written one step at a time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
import zarr

if TYPE_CHECKING:
    from diffusion_lab.inference.forecaster import Forecaster

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
    forecaster: Forecaster,
    date: np.datetime64,
    members: Sequence[int],
    states: np.ndarray,
    first_step: int = 1,
) -> xr.Dataset:
    """Label the states of a forecast.

    Args:
        forecaster: who made it.
        date: its start.
        members: (ensemble,) member numbers.
        states: (step, ensemble, cell, output variable), physical units.
        first_step: number of the first of these steps.

    Returns:
        Dataset with dims (time, ensemble, cell).
    """
    leads = (first_step + np.arange(len(states))) * forecaster.step
    info = {v.name: v for v in forecaster.release.variables}
    fields = {}
    for i, name in enumerate(forecaster.variables.output):
        attributes = {"long_name": info[name].long_name or name} | cf_attributes(name)
        if info[name].units:  # without them it is unknown, not dimensionless
            attributes["units"] = info[name].units
        fields[name] = (("time", "ensemble", "cell"), states[..., i], attributes)
    coordinates = {
        "time": ("time", (date + leads).astype("datetime64[ns]"), {"standard_name": "time"}),
        "lead_time": ("time", leads.astype("timedelta64[ns]"), {"standard_name": "forecast_period"}),
        "ensemble": ("ensemble", np.asarray(members), {"standard_name": "realization"}),
        "latitude": ("cell", forecaster.latitudes, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("cell", forecaster.longitudes, {"units": "degrees_east", "standard_name": "longitude"}),
        "forecast_reference_time": (
            (),
            date.astype("datetime64[ns]"),
            {"standard_name": "forecast_reference_time"},
        ),
    }
    attributes = {"Conventions": "CF-1.11", "field_shape": list(forecaster.release.field_shape)}
    return xr.Dataset(fields, coordinates, attributes)


def cf_attributes(name: str) -> dict[str, str]:
    """The CF standard name of a variable such as "z500" or "msl", if it is a known one."""
    prefix = name if name in CF_NAMES else re.sub(r"_?\d+$", "", name)
    return {"standard_name": CF_NAMES[prefix]} if prefix in CF_NAMES else {}


def write_forecast(
    path: str | Path,
    forecaster: Forecaster,
    date: np.datetime64,
    members: Sequence[int],
    states: Iterable[np.ndarray],
) -> Path:
    """Write a forecast as it is made, holding one step in memory at a time.

    Args:
        path: ends in ".zarr" or ".nc".
        forecaster: who makes it.
        date: its start.
        members: (ensemble,) member numbers.
        states: one (ensemble, cell, output variable) a step, as `Forecaster.states` yields.

    Returns:
        The path.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix not in (".zarr", ".nc"):
        raise ValueError(f"a forecast is written to NAME.zarr or NAME.nc, not to {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    zarr_path = path if path.suffix == ".zarr" else path.with_suffix(".partial.zarr")
    for i, state in enumerate(states):
        step = forecast_dataset(forecaster, date, members, state[None], first_step=i + 1)
        if i == 0:
            # Units said once: times appended later must be encoded as the first were.
            encoding = {
                "time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
                "lead_time": {"units": "seconds", "dtype": "int64"},
            }
            step.to_zarr(zarr_path, mode="w", encoding=encoding, consolidated=False, zarr_format=2)
        else:
            step.to_zarr(zarr_path, append_dim="time", consolidated=False)
    if path.suffix == ".nc":
        with xr.open_zarr(zarr_path, consolidated=False) as stored:
            stored.to_netcdf(path, engine="h5netcdf")
        shutil.rmtree(zarr_path)
    else:
        zarr.consolidate_metadata(zarr_path, zarr_format=2)
    return path
