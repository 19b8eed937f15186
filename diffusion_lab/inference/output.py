"""Forecasts as NetCDF and zarr files, written one step at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusion_lab.inference.destination import check_destination
from diffusion_lab.inference.rollout import Rollout


def write_forecast(
    path: str | Path,
    rollout: Rollout,
    states: Iterable[NDArray[np.float32]] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a forecast while it is computed, with one step in memory at a time.

    It is written to NAME.partial.zarr and renamed when complete. Errors as `check_destination`, which is
    called before the first step is sampled, and as `Rollout.solver_steps`.

    Args:
        path: ends in ".zarr" or ".nc".
        rollout: the forecast.
        states: its states if computed elsewhere, see `devices`; None for `rollout.states()`.
        overwrite: replace an existing forecast.

    Returns:
        The path.
    """
    import xarray as xr
    import zarr

    path = check_destination(path, overwrite)
    zarr_path = path.with_suffix(".partial.zarr")
    for i, state in enumerate(rollout.states() if states is None else states):
        step = rollout.label(state[None], first_step=i + 1)
        if i == 0:
            # Explicit units: times appended later must be encoded as the first were.
            encoding = {
                "time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
                "lead_time": {"units": "seconds", "dtype": "int64"},
            }
            step.to_zarr(zarr_path, mode="w", encoding=encoding, consolidated=False, zarr_format=2)
        else:
            step.to_zarr(zarr_path, append_dim="time", consolidated=False)
    if path.suffix == ".nc":
        with xr.open_zarr(zarr_path, consolidated=False) as stored:
            stored.to_netcdf(path.with_suffix(".partial.nc"), engine="h5netcdf")
        path.with_suffix(".partial.nc").replace(path)
        shutil.rmtree(zarr_path)
        return path
    zarr.consolidate_metadata(zarr_path, zarr_format=2)
    check_destination(path, overwrite)  # the path may have been created meanwhile
    if path.exists():
        shutil.rmtree(path)
    zarr_path.rename(path)
    return path
