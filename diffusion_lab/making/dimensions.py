"""The dimensions of a field other than time and place: levels, members, lead times, months."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

# Names of vertical coordinates that carry no CF attributes.
_VERTICAL = re.compile(r"lev|plev|isobaric|pressure|height|depth|altitude|hybrid", re.IGNORECASE)


def select_values(dataset: xr.Dataset, wanted: Mapping[str, float | str]) -> xr.Dataset | None:
    """Select the part of a file at some values of its coordinates; None if it holds only other values.

    Args:
        dataset: the file. A dimension without coordinates is counted from 0.
        wanted: name of a coordinate to its value; a lead time as `6h`, or in hours. Coordinates that the
            file lacks are ignored, the others are dropped.
    """
    for name, value in wanted.items():
        if name not in dataset.coords and name not in dataset.dims:
            continue
        found = np.flatnonzero(_equal(np.atleast_1d(dataset[name].values), value))
        if len(found) == 0:
            return None
        dataset = dataset.isel({name: int(found[0])}, missing_dims="ignore").drop_vars(name, errors="ignore")
    return dataset


def _equal(values: NDArray[Any], value: float | str) -> NDArray[np.bool_]:
    try:
        if values.dtype.kind == "m":
            hours = f"{value:g}h" if isinstance(value, float) else value
            return values == pd.Timedelta(hours).to_timedelta64()
        if values.dtype.kind == "M":
            return values == np.datetime64(str(value))
        if values.dtype.kind in "iuf":
            return np.isclose(values.astype(float), float(value))
    except ValueError:
        return np.zeros(len(values), bool)
    return values.astype(str) == str(value)


def at_level(
    array: xr.DataArray, level: float | None, places: Collection[str], file: str
) -> xr.DataArray | None:
    """Select one level of a variable and drop all dimensions but time and place; None if it lacks the level.

    Args:
        array: the variable.
        level: the value of its vertical coordinate; None if it has only one.
        places: the dimensions of time and place.
        file: its file, for the messages.

    Raises:
        ValueError: if it has several levels and none is given, or another dimension of several values.
    """
    array = array.squeeze([dim for dim in array.dims if dim not in places and array.sizes[dim] == 1])
    several = [str(dim) for dim in array.dims if dim not in places]
    vertical = [dim for dim in several if _is_vertical(array[dim])]
    if level is not None and not vertical and len(several) == 1 and array[several[0]].dtype.kind in "iuf":
        vertical = several
    if others := [dim for dim in several if dim not in vertical[:1]]:
        raise ValueError(unexpected(array, others[0], file))
    if vertical:
        values = array[vertical[0]].values
        if level is None:
            raise ValueError(
                f"{file}: {array.name} has {len(values)} values of {vertical[0]}: {_labels(values)}. Say "
                f"which: {array.name}: {{variable: {array.name}, level: {_label(values[0])}}}."
            )
        found = np.flatnonzero(_equal(values, level))
        return array.isel({vertical[0]: int(found[0])}) if len(found) else None
    if level is not None:
        scalars = [c.values.ravel() for c in array.coords.values() if c.size == 1 and c.dtype.kind in "iuf"]
        if not any(_equal(scalar, level)[0] for scalar in scalars):
            return None
    return array


def unexpected(array: xr.DataArray, dim: str, file: str) -> str:
    """The message about a dimension of several values for which a store has no place."""
    values = array[dim].values
    undated = " The variable has no time: none of its coordinates holds dates."
    return (
        f"{file}: {array.name} has the dimension {dim} of size {len(values)} ({_labels(values)}), but a "
        "store has one field per date. Choose one in the recipe, "
        f"select: {{{dim}: {_label(values[0])}}}.{'' if 'time' in array.dims else undated}"
    )


def _is_vertical(coordinate: xr.DataArray) -> bool:
    described = coordinate.attrs.get("axis") == "Z" or "positive" in coordinate.attrs
    return coordinate.dtype.kind in "iuf" and (described or bool(_VERTICAL.search(str(coordinate.name))))


def _labels(values: NDArray[Any]) -> str:
    shown = ", ".join(_label(value) for value in values[:6])
    return f"{shown}, ..." if len(values) > 6 else shown


def _label(value: Any) -> str:
    """A value as recipes spell it."""
    if isinstance(value, np.timedelta64):
        return f"{value / np.timedelta64(1, 'h'):g}h"
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[s]"))
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)
