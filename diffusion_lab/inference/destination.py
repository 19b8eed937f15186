"""The path of a forecast, checked before it is sampled."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import zarr


def check_destination(path: str | Path, overwrite: bool = False) -> Path:
    """Make the folder of a path, and check that a forecast can be written to the path.

    Args:
        path: ends in ".zarr" or ".nc".
        overwrite: replace an existing forecast; anything else is never replaced.

    Raises:
        ValueError: another ending, or the path exists and must not be replaced.
        OSError: its folder cannot be made or written to.
    """
    path = Path(path)
    if path.suffix not in (".zarr", ".nc"):
        raise ValueError(f"a forecast is written to NAME.zarr or NAME.nc, not to {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"the folder {str(path.parent)!r} cannot be written in; give another output")
    if path.exists():
        if not _is_forecast(path):
            raise ValueError(f"{str(path)!r} is there already and is not a forecast; give another output")
        if not overwrite:
            raise ValueError(
                f"the forecast {str(path)!r} is there already; give another output, or overwrite=true to "
                "replace it"
            )
    return path


def _is_forecast(path: Path) -> bool:
    """Whether a file or folder is a forecast, as `forecast_dataset` labels it."""
    try:
        if path.suffix == ".zarr":
            names = set(zarr.open_group(path, mode="r").array_keys())
        else:
            with h5py.File(path) as file:
                names = set(file)
    except (OSError, ValueError):
        return False
    return {"forecast_reference_time", "lead_time"} <= names
