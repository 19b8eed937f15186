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

from diffusion_lab.making.grids import Grid, check_distinct, find_grid
from diffusion_lab.spelling import nearest
from diffusion_lab.stores.dates import check_sorted, show_date

# What a task reads at once where the file's own chunks do not say.
_CHUNK_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Field:
    """One variable on the cells.

    Attributes:
        name: what it is called in the files, with its level.
        data: lazy; (time, cell), or (cell,) if it has no dates.
        dates: (time,) datetime64[s], strictly ascending; empty if it has none.
        units: as the files say, or empty.
        long_name: as the files say, or empty.
        file: the first of its files, for messages.
    """

    name: str
    data: da.Array
    dates: np.ndarray
    units: str
    long_name: str
    file: str


class Sources:
    """The files that the patterns match, all on one grid.

    Args:
        patterns: local paths or globs, or URLs of zarr groups.
        variables: those that are wanted, as the files call them.
        storage_options: options of the URLs' file system.
        coordinates: what the files call `time`, `latitude` and `longitude`, where it cannot be guessed.

    Attributes:
        files: all files, sorted within each pattern.
        grid: the grid of all of them.

    Raises:
        FileNotFoundError: if a pattern matches nothing.
        ValueError: naming the file, if it cannot be read, its coordinates cannot be understood, its grid is
            another than the first file's, or its dates are unsorted or those of another file.
    """

    def __init__(
        self,
        patterns: Iterable[str],
        variables: Collection[str],
        storage_options: Mapping[str, Any],
        coordinates: Mapping[str, str],
    ) -> None:
        self.files = [file for pattern in patterns for file in _expand(pattern)]
        self.available: set[str] = set()
        self.grid: Grid | None = None
        # Files with the same variables and levels continue one another in time.
        self._series: dict[Any, list[tuple[str, xr.Dataset]]] = {}
        for file in self.files:
            for dataset in _open(file, storage_options):
                self.available |= set(map(str, dataset.data_vars))
                self._check_grid(dataset, file, coordinates)
                wanted = dataset[[name for name in dataset.data_vars if name in variables]]
                if wanted.data_vars:
                    wanted = _with_time(wanted, file, coordinates.get("time"), self.grid)
                    key = (frozenset(map(str, wanted.data_vars)), _levels(wanted, self.grid))
                    self._series.setdefault(key, []).append((file, wanted))
        self._joined = {key: _join(series) for key, series in self._series.items()}

    def _check_grid(self, dataset: xr.Dataset, file: str, coordinates: Mapping[str, str]) -> None:
        grid = find_grid(dataset, file, coordinates)
        if self.grid is None:
            check_distinct(grid, file)
            self.grid = grid
        elif not grid.equals(self.grid):
            raise ValueError(
                f"The grids differ: {file} has {grid}, but {self.files[0]} has {self.grid}. "
                "Interpolate to one grid first, or make two stores."
            )

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
            array = _select_level(dataset[variable], level, self.grid, file)
            if array is not None:
                found.append(self._flatten(name, array, dates, file))
        if len(found) > 1:
            files = " and ".join(field.file for field in found)
            raise ValueError(f"{name} is in several files that do not continue one another: {files}.")
        if not found:
            levels = [dict(key[1]) for key in holding]
            raise ValueError(f"{variable} has no level {level:g}; it has {levels}.")
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
    try:
        if file.lower().endswith((".grib", ".grb", ".grib2", ".grb2")):
            return _open_grib(file)
        if "://" in file or os.path.isdir(file):
            options = {"storage_options": dict(storage_options)} if "://" in file else {}
            return [xr.open_dataset(file, engine="zarr", chunks=None, **options)]
        return [xr.open_dataset(file, chunks=None)]
    except ImportError as error:
        raise ValueError(f"Reading {file} needs another package: {error}") from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"Cannot read {file}; is it cut short, or no netCDF, GRIB or zarr? ({why})"
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
    if time not in dataset.coords or dataset[time].dtype.kind != "M":
        about = f"of type {dataset[time].dtype}" if time in dataset.variables else "not in the file"
        raise ValueError(
            f"{file}: {time} cannot be understood as dates ({about}). Give it CF units such as 'hours since "
            "1900-01-01' and a standard calendar."
        )
    if time != "time":
        dataset = dataset.drop_vars("time", errors="ignore").rename({time: "time"})
    if dataset["time"].ndim == 0:
        dataset = dataset.expand_dims("time")
    for name, array in dataset.data_vars.items():
        dataset[name] = array.chunk(_chunks(array, grid))
    return dataset


def _time_name(dataset: xr.Dataset, file: str) -> str | None:
    dated = [str(dim) for dim in dataset.dims if dim in dataset.coords and dataset[dim].dtype.kind == "M"]
    if len(dated) > 1:
        raise ValueError(
            f"{file}: several dimensions have dates, {', '.join(dated)}. Say in the recipe which is the time "
            "of the field, for example coordinates: {time: valid_time}."
        )
    if dated:
        return dated[0]
    usual = [name for name in ("valid_time", "time") if name in dataset.dims or name in dataset.coords]
    return usual[0] if usual else None


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


def _select_level(array: xr.DataArray, level: float | None, grid: Grid, file: str) -> xr.DataArray | None:
    """The variable at a level, with no dimensions but time and place; None if it is not at that level."""
    extra = [dim for dim in array.dims if dim not in ("time", *grid.dims)]
    for dim in [dim for dim in extra if array.sizes[dim] > 1]:
        values = array[dim].values
        if level is None:
            raise ValueError(
                f"{file}: {array.name} has {len(values)} values of {dim}: {', '.join(map(str, values))}. Say "
                f"which: {array.name}: {{variable: {array.name}, level: {values[0]}}}."
            )
        at = np.flatnonzero(np.isclose(values.astype(float), level))
        if len(at) == 0:
            return None
        return _select_level(array.isel({dim: int(at[0])}), None, grid, file)
    if level is not None:
        scalars = [
            float(c.values.item()) for c in array.coords.values() if c.size == 1 and c.dtype.kind in "iuf"
        ]
        if not np.isclose(scalars, level).any():
            return None
    return array.squeeze(extra)


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
