"""The files of a recipe: whatever xarray opens, as lazy fields of named variables on one grid."""

from __future__ import annotations

import glob
import itertools
import math
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from diffusion_lab.making.dimensions import at_level, select_values, unexpected
from diffusion_lab.making.grids import Grid, check_distinct, find_grid
from diffusion_lab.spelling import nearest
from diffusion_lab.stores.dates import check_sorted, show_date
from diffusion_lab.stores.reading import check_group

# Bytes that a task reads at once, where the file itself has no chunks.
_CHUNK_BYTES = 2 * 2**20


class Sources:
    """The files that the patterns match, all on one grid.

    Args:
        patterns: local paths or globs, or URLs of zarr groups.
        variables: the variables wanted, by their names in the files.
        storage_options: options of the URLs' file system.
        coordinates: names of `time`, `latitude` and `longitude` in the files, where they cannot be guessed.
        select: values of other coordinates, such as `{number: 0}`; see `dimensions.select_values`.

    Attributes:
        files: all files, sorted within each pattern.
        grid: the grid of all of them.

    Raises:
        FileNotFoundError: if a pattern matches nothing.
        ValueError: naming the file that cannot be read, whose coordinates cannot be understood, whose grid
            differs from that of the first file, or whose dates are unsorted or also in another file.
    """

    def __init__(
        self,
        patterns: Iterable[str],
        variables: Collection[str],
        storage_options: Mapping[str, Any],
        coordinates: Mapping[str, str],
        select: Mapping[str, float | str],
    ) -> None:
        self.files = [file for pattern in patterns for file in _expand(pattern)]
        self._available: set[str] = set()
        grid: Grid | None = None
        # Files with the same variables and levels continue one another in time.
        series: dict[Any, list[xr.Dataset]] = {}
        unused = dict(select)
        for file in self.files:
            for dataset in _open(file, storage_options):
                dataset.attrs = {"file": file}
                self._available |= set(map(str, dataset.data_vars))
                found = find_grid(dataset, file, coordinates)
                if grid is None:
                    check_distinct(found, file)
                    grid = found
                elif not found.equals(grid):
                    raise ValueError(
                        f"The grids differ: {file} has {found}, but {self.files[0]} has {grid}. "
                        "Interpolate to one grid first, or make two stores."
                    )
                wanted = dataset[[name for name in dataset.data_vars if name in variables]]
                selected = select_values(wanted, select)
                if selected is None or not selected.data_vars:
                    continue
                for name in (*wanted.coords, *wanted.dims):
                    unused.pop(str(name), None)
                selected = _with_time(selected, coordinates.get("time"), grid)
                key = (frozenset(selected.data_vars), _levels(selected, grid))
                series.setdefault(key, []).append(selected)
        if grid is None:
            raise ValueError(f"The sources {', '.join(patterns)} hold no fields.")
        if unused:
            name, value = unused.popitem()
            raise ValueError(f"select: no file has the variables at {name} {value}.")
        self.grid = grid
        self._series = [_join(files) for files in series.values()]

    def field(self, variable: str, level: float | None) -> xr.DataArray:
        """A variable, at one level if it has any.

        Returns:
            A lazy array (time, cell), or (cell,) if it has no dates. `time` is datetime64[s] and strictly
            ascending; its attribute `calendar` is `noleap` if 29 February is left out. The attributes are
            `units`, `long_name`, and `file`, the first of its files.

        Raises:
            ValueError: if no file has it, or it is not clear which is meant.
        """
        name = variable if level is None else f"{variable} at level {level:g}"
        series = [dataset for dataset in self._series if variable in dataset.data_vars]
        if not series:
            raise ValueError(
                f"No source file has a variable {variable!r}{nearest(variable, sorted(self._available))}"
            )
        found, places = [], ("time", *self.grid.dims)
        for dataset in series:
            array = at_level(dataset[variable], level, places, file := dataset.attrs["file"])
            if array is not None:
                found.append(self._flatten(name, array, file))
        if len(found) > 1:
            files = " and ".join(field.attrs["file"] for field in found)
            raise ValueError(f"{name} is in several files that do not continue one another: {files}.")
        if not found:
            levels = (level for dataset in series for level in _levels(dataset, self.grid))
            known = {f"{coordinate} {', '.join(f'{v:g}' for v in values)}" for coordinate, values in levels}
            raise ValueError(
                f"{variable} has no level {level:g}; it has {'; '.join(sorted(known)) or 'no levels at all'}."
            )
        return found[0]

    def _flatten(self, name: str, array: xr.DataArray, file: str) -> xr.DataArray:
        if set(self.grid.dims) - set(array.dims):
            raise ValueError(f"{file}: {name} has the dimensions {array.dims}, not {self.grid.dims}.")
        array = array.transpose(..., *self.grid.dims)
        leading = array.shape[: -len(self.grid.dims)]
        attributes = {
            # UDUNITS allows both m**2 and m2; stores say m2.
            "units": str(array.attrs.get("units", "")).replace("**", ""),
            "long_name": str(array.attrs.get("long_name", "")),
            "file": file,
        }
        time = {"time": array["time"].variable} if leading else {}
        return xr.DataArray(array.data.reshape(*leading, -1), time, (*time, "cell"), name, attributes)


def _expand(pattern: str) -> list[str]:
    if "://" in pattern:
        return [pattern]
    files = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    if not files:
        raise FileNotFoundError(f"No file matches the source {pattern!r} (seen from {os.getcwd()}).")
    return files


def _open(file: str, storage_options: Mapping[str, Any]) -> list[xr.Dataset]:
    """The datasets in a file: one, or several in GRIB."""
    options = dict(storage_options) if "://" in file else None
    is_zarr = "://" in file or os.path.isdir(file)
    if is_zarr:
        check_group(file, options)
    try:
        if file.lower().endswith((".grib", ".grb", ".grib2", ".grb2")):
            return _open_grib(file)
        kind: dict[str, Any] = {"engine": "zarr", "storage_options": options} if is_zarr else {}
        return [xr.open_dataset(file, decode_timedelta=True, **kind)]
    except ImportError as error:
        raise ValueError(f"Reading {file} needs another package: {error}") from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"Cannot read {file}; is it truncated, or not netCDF, GRIB or zarr? ({why})"
        ) from error


def _open_grib(file: str) -> list[xr.Dataset]:
    try:
        import cfgrib
    except ImportError as error:
        raise ImportError("pip install 'diffusion-lab[grib]'") from error
    datasets = cfgrib.open_datasets(file, backend_kwargs={"indexpath": ""})
    if not datasets:
        raise ValueError("it holds no fields")
    return datasets


def _with_time(dataset: xr.Dataset, time: str | None, grid: Grid) -> xr.Dataset:
    """The dataset with its dates along the dimension `time`, in dask chunks."""
    file = dataset.attrs["file"]
    time = time or _time_name(dataset, file)
    if time is None:
        return dataset.chunk()
    if time not in dataset.variables:
        raise ValueError(f"{file}: there is no {time!r}, which the recipe names as the time.")
    dates = _real_dates(dataset[time], file)
    along = str(dataset[time].dims[0]) if dataset[time].ndim == 1 else "time"
    first = next(iter(dataset.data_vars.values()))
    if dataset[time].ndim > 1 or (along != "time" and "time" in dataset.dims):
        other = next(dim for dim in map(str, first.dims) if dim not in (time, *grid.dims))
        raise ValueError(unexpected(first, other, file))
    dataset = dataset.drop_vars([name for name in {time, along, "time"} if name in dataset.coords])
    if along in dataset.dims:
        dataset = dataset.rename_dims({} if along == "time" else {along: "time"})
    else:
        dataset = dataset.expand_dims("time")
    dataset = dataset.assign_coords(time=dates)
    for name, array in dataset.data_vars.items():
        dataset[name] = array.chunk(_chunks(array, grid))
    return dataset


def _real_dates(coordinate: xr.DataArray, file: str) -> xr.Variable:
    """Dates as datetime64[s] (time,); the attribute `calendar` is `noleap` if 29 February is left out.

    Raises:
        ValueError: if they are not dates, or their calendar has dates that do not exist.
    """
    values = np.atleast_1d(coordinate.values)
    if values.dtype.kind == "M":
        return xr.Variable("time", values.astype("datetime64[s]"))
    calendar = getattr(values.flat[0], "calendar", None) if values.size else None
    if calendar is None:
        raise ValueError(
            f"{file}: {coordinate.name} cannot be understood as dates (of type {coordinate.dtype}). "
            "Give it CF units such as 'hours since 1900-01-01' and a standard calendar."
        )
    leap_days = calendar not in ("noleap", "365_day")
    if leap_days and calendar not in ("standard", "gregorian", "proleptic_gregorian"):
        raise ValueError(
            f"{file}: {coordinate.name} is in the calendar {calendar}, some of whose dates do not exist. "
            "Convert the file first, with xarray: dataset.convert_calendar('standard', align_on='year')."
        )
    dates = np.array([date.isoformat() for date in values.flat], "datetime64[s]")
    return xr.Variable("time", dates, {} if leap_days else {"calendar": "noleap"})


def _time_name(dataset: xr.Dataset, file: str) -> str | None:
    # A forecast has the time at which its fields are valid beside the time at which it was started.
    if "valid_time" in dataset.coords and dataset["valid_time"].ndim < 2:
        return "valid_time"
    of_dates = pd.DatetimeIndex | xr.CFTimeIndex
    dated = [str(dim) for dim, index in dataset.indexes.items() if isinstance(index, of_dates)]
    if len(dated) > 1:
        raise ValueError(
            f"{file}: several dimensions have dates, {', '.join(dated)}. Say in the recipe which is the time "
            "of the field, for example coordinates: {time: valid_time}."
        )
    if dated:
        return dated[0]
    return "time" if "time" in dataset.dims or "time" in dataset.coords else None


def _chunks(array: xr.DataArray, grid: Grid) -> dict[str, int]:
    """The chunks of the file, else whole fields of one level, with as many dates as keep a task small."""
    own = array.encoding.get("preferred_chunks", {})
    sizes = {str(dim): int(own.get(dim, n if dim in grid.dims else 1)) for dim, n in array.sizes.items()}
    if "time" in sizes:
        step = sizes.pop("time")
        one_step = array.dtype.itemsize * step * math.prod(sizes.values())
        sizes["time"] = step * max(1, _CHUNK_BYTES // one_step)
    return sizes


def _levels(dataset: xr.Dataset, grid: Grid) -> frozenset[tuple[str, tuple[float, ...]]]:
    """Names and values of all coordinates that are neither time nor place."""
    return frozenset(
        (str(name), tuple(np.atleast_1d(coordinate.values).tolist()))
        for name, coordinate in dataset.coords.items()
        if coordinate.dtype.kind in "iuf" and coordinate.dims in ((), (name,))
        if name not in ("time", *grid.dims) or not coordinate.ndim
    )


def _join(series: list[xr.Dataset]) -> xr.Dataset:
    """Files with the same variables, concatenated in time."""
    files = [dataset.attrs["file"] for dataset in series]
    if "time" not in series[0].dims:
        if len(series) > 1:
            raise ValueError(f"{files[0]} and {files[1]} hold the same variables and no dates.")
        return series[0]
    for file, dataset in zip(files, series, strict=True):
        check_sorted(dataset["time"].values, file)
    series = sorted(series, key=lambda dataset: dataset["time"].values[0])
    for dataset, later in itertools.pairwise(series):
        first = later["time"].values[0]
        if first <= dataset["time"].values[-1]:
            both = f"{dataset.attrs['file']} and {later.attrs['file']}"
            raise ValueError(f"{both} both hold {show_date(first)}.")
    # Grids and levels have been compared; what has no time is taken from the first file.
    return xr.concat(
        series, "time", data_vars="minimal", coords="minimal", compat="override", join="override"
    )
