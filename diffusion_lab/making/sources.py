"""What a recipe reads: any files that xarray opens, as lazy fields of named variables on one grid."""

from __future__ import annotations

import glob
import itertools
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffusion_lab.making.dimensions import at_level, select_values, unexpected
from diffusion_lab.making.grids import Grid, check_distinct, find_grid
from diffusion_lab.spelling import nearest
from diffusion_lab.stores.dates import check_sorted, show_date
from diffusion_lab.stores.reading import check_group

# Bytes that a task reads at once, where the file has no chunks of its own.
_CHUNK_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Field:
    """One variable on the cells.

    Attributes:
        name: name in the files, with its level.
        data: lazy; (time, cell), or (cell,) if it has no dates.
        dates: (time,) datetime64[s], strictly ascending; empty if it has none.
        units: as given in the files, or empty.
        long_name: as given in the files, or empty.
        file: the first of its files, for messages.
        leap_days: whether its calendar has 29 February.
    """

    name: str
    data: da.Array
    dates: NDArray[np.datetime64]
    units: str
    long_name: str
    file: str
    leap_days: bool


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
        ValueError: naming the file, if it cannot be read, its coordinates cannot be understood, its grid
            differs from that of the first file, or its dates are unsorted or in another file, too.
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
        self.available: set[str] = set()
        grid = None
        # Files with the same variables and levels continue one another in time.
        series: dict[Any, list[tuple[str, xr.Dataset]]] = {}
        left = dict(select)
        for file in self.files:
            for dataset in _open(file, storage_options):
                self.available |= set(map(str, dataset.data_vars))
                grid = self._checked_grid(dataset, file, coordinates, grid)
                wanted = dataset[[name for name in dataset.data_vars if name in variables]]
                selected = select_values(wanted, select)
                if selected is None or not selected.data_vars:
                    continue
                left = {name: value for name, value in left.items() if name not in _names(wanted)}
                selected = _with_time(selected, file, coordinates.get("time"), grid)
                key = (frozenset(map(str, selected.data_vars)), _levels(selected, grid))
                series.setdefault(key, []).append((file, selected))
        if grid is None:
            raise ValueError(f"The sources {', '.join(patterns)} hold no fields.")
        if left:
            name, value = next(iter(left.items()))
            raise ValueError(f"select: no file has the variables at {name} {value}.")
        self.grid = grid
        self._joined = {key: _join(files) for key, files in series.items()}

    def _checked_grid(
        self, dataset: xr.Dataset, file: str, coordinates: Mapping[str, str], first: Grid | None
    ) -> Grid:
        grid = find_grid(dataset, file, coordinates)
        if first is None:
            check_distinct(grid, file)
            return grid
        if not grid.equals(first):
            raise ValueError(
                f"The grids differ: {file} has {grid}, but {self.files[0]} has {first}. "
                "Interpolate to one grid first, or make two stores."
            )
        return first

    def field(self, variable: str, level: float | None) -> Field:
        """The field of a variable, at one level if it has any.

        Raises:
            ValueError: if no file has it, or it is not clear which is meant.
        """
        name = variable if level is None else f"{variable} at level {level:g}"
        holding = [key for key in self._joined if variable in key[0]]
        if not holding:
            raise ValueError(
                f"No source file has a variable {variable!r}{nearest(variable, sorted(self.available))}"
            )
        found = []
        for key in holding:
            dataset, dates, file = self._joined[key]
            array = at_level(dataset[variable], level, ("time", *self.grid.dims), file)
            if array is not None:
                found.append(self._flatten(name, array, dates, file))
        if len(found) > 1:
            files = " and ".join(field.file for field in found)
            raise ValueError(f"{name} is in several files that do not continue one another: {files}.")
        if not found:
            known = {
                f"{name} {', '.join(f'{v:g}' for v in values)}" for key in holding for name, values in key[1]
            }
            raise ValueError(
                f"{variable} has no level {level:g}; it has {'; '.join(sorted(known)) or 'no levels at all'}."
            )
        return found[0]

    def _flatten(self, name: str, array: xr.DataArray, dates: np.ndarray, file: str) -> Field:
        missing = set(self.grid.dims) - set(array.dims)
        if missing:
            raise ValueError(f"{file}: {name} has the dimensions {array.dims}, not {self.grid.dims}.")
        leading = ("time",) if "time" in array.dims else ()
        data = array.transpose(*leading, *self.grid.dims).data
        return Field(
            name,
            data.reshape(*data.shape[: len(leading)], -1),
            dates if leading else dates[:0],
            # UDUNITS allows both m**2 and m2; stores say m2.
            str(array.attrs.get("units", "")).replace("**", ""),
            str(array.attrs.get("long_name", "")),
            file,
            leap_days=not leading or array["time"].attrs.get("calendar") != "noleap",
        )


def _expand(pattern: str) -> list[str]:
    if "://" in pattern:
        return [pattern]
    files = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    if not files:
        raise FileNotFoundError(f"No file matches the source {pattern!r} (seen from {os.getcwd()}).")
    return files


def _open(file: str, storage_options: Mapping[str, Any]) -> list[xr.Dataset]:
    """The datasets in a file: one, or several in GRIB."""
    if "://" in file or os.path.isdir(file):
        check_group(file, storage_options if "://" in file else None)
    try:
        if file.lower().endswith((".grib", ".grb", ".grib2", ".grb2")):
            return _open_grib(file)
        if "://" in file or os.path.isdir(file):
            options = {"storage_options": dict(storage_options)} if "://" in file else {}
            return [xr.open_dataset(file, engine="zarr", decode_timedelta=True, backend_kwargs=options)]
        return [xr.open_dataset(file, decode_timedelta=True)]
    except ImportError as error:
        raise ValueError(f"Reading {file} needs another package: {error}") from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"Cannot read {file}; is it cut short, or not netCDF, GRIB or zarr? ({why})"
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


def _with_time(dataset: xr.Dataset, file: str, time: str | None, grid: Grid) -> xr.Dataset:
    """The dataset with its dates along the dimension `time`, in chunks of dask."""
    time = time or _time_name(dataset, file)
    if time is None:
        return dataset.chunk()
    if time not in dataset.variables:
        raise ValueError(f"{file}: there is no {time!r}, which the recipe takes for the time.")
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
    """Dates as datetime64 (time,); the attribute `calendar` is `noleap` if 29 February is left out.

    Raises:
        ValueError: if they are not dates, or their calendar has dates that do not exist.
    """
    values = np.atleast_1d(coordinate.values)
    if values.dtype.kind == "M":
        return xr.Variable("time", values)
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


def _has_dates(coordinate: xr.DataArray) -> bool:
    first = coordinate.values.flat[0] if coordinate.size else None
    return coordinate.dtype.kind == "M" or hasattr(first, "calendar")


def _time_name(dataset: xr.Dataset, file: str) -> str | None:
    # The time of a forecast's fields, beside the time at which it was started.
    if "valid_time" in dataset.coords and dataset["valid_time"].ndim < 2:
        return "valid_time"
    dated = [str(dim) for dim in dataset.dims if dim in dataset.coords and _has_dates(dataset[dim])]
    if len(dated) > 1:
        raise ValueError(
            f"{file}: several dimensions have dates, {', '.join(dated)}. Say in the recipe which is the time "
            "of the field, for example coordinates: {time: valid_time}."
        )
    if dated:
        return dated[0]
    return "time" if "time" in dataset.dims or "time" in dataset.coords else None


def _names(dataset: xr.Dataset) -> set[str]:
    return {str(name) for name in (*dataset.coords, *dataset.dims)}


def _chunks(array: xr.DataArray, grid: Grid) -> dict[str, int]:
    """The file's own chunks, else whole fields of one level; as many dates as keep a task small."""
    own = array.encoding.get("preferred_chunks", {})
    sizes = {
        str(dim): int(own.get(dim, size if dim in grid.dims else 1)) for dim, size in array.sizes.items()
    }
    if "time" in sizes:
        step = sizes.pop("time")
        one_step = array.dtype.itemsize * step * math.prod(sizes.values())
        sizes["time"] = step * max(1, _CHUNK_BYTES // one_step)
    return sizes


def _levels(dataset: xr.Dataset, grid: Grid) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Names and values of all coordinates that are neither time nor place."""
    places = {"time", *grid.dims}
    return tuple(
        (str(name), tuple(np.atleast_1d(coordinate.values).tolist()))
        for name, coordinate in sorted(dataset.coords.items(), key=lambda item: str(item[0]))
        if coordinate.dtype.kind in "iuf" and not places & set(map(str, coordinate.dims))
        if coordinate.dims == (name,) or coordinate.ndim == 0
    )


def _join(series: list[tuple[str, xr.Dataset]]) -> tuple[xr.Dataset, np.ndarray, str]:
    """Files of the same variables, one after another in time; with their dates and the first's name."""
    if "time" not in series[0][1].dims:
        if len(series) > 1:
            raise ValueError(f"{series[0][0]} and {series[1][0]} hold the same variables and no dates.")
        return series[0][1], np.array([], "datetime64[s]"), series[0][0]
    for file, dataset in series:
        check_sorted(_dates(dataset), file)
    series = sorted(series, key=lambda item: item[1]["time"].values[0])
    for (file, dataset), (later_file, later) in itertools.pairwise(series):
        if _dates(later)[0] <= _dates(dataset)[-1]:
            raise ValueError(f"{file} and {later_file} both hold {show_date(_dates(later)[0])}.")
    datasets = [dataset for _, dataset in series]
    joined = datasets[0]
    if len(datasets) > 1:
        # Grids and levels were compared before; what has no time is taken from the first file.
        joined = xr.concat(
            datasets, "time", data_vars="minimal", coords="minimal", compat="override", join="override"
        )
    return joined, _dates(joined), series[0][0]


def _dates(dataset: xr.Dataset) -> np.ndarray:
    return dataset["time"].values.astype("datetime64[s]")
