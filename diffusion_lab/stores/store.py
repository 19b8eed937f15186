"""Reading a store: a zarr group in the layout of anemoi-datasets, never loaded whole."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError

from diffusion_lab.stores.attributes import Role, StoreAttributes, VariableAttributes, check_role
from diffusion_lab.stores.dates import even_frequency, lead_name, lead_timedelta, parse_date, show_date
from diffusion_lab.stores.reading import open_array, open_group, reading
from diffusion_lab.stores.statistics import STATISTICS, Statistics

if TYPE_CHECKING:
    import xarray as xr

# Bytes of decoded chunks that a store caches: a season of the example store.
CACHE_BYTES = 128 * 2**20

_REQUIRED = ("data", "dates", "latitudes", "longitudes", *STATISTICS)


def open_store(path: str | PathLike[str], roles: Mapping[str, Role] | None = None) -> Store:
    """Open a store for reading.

    Args:
        path: local path, or URL that fsspec understands, of a zarr v2 or v3 group.
        roles: roles of some variables, which replace those in the store.

    Raises:
        FileNotFoundError: if there is no zarr group at `path`.
        KeyError: if `roles` names a variable that is not in the store.
        ValueError: if it is not such a store, is damaged or incomplete (see `Store`), or a role is unknown.
    """
    url = fspath(path).removeprefix("file://")
    store = Store(open_group(url), url)
    for name, role in (roles or {}).items():
        store._columns([name])
        check_role(name, role)
        store.roles[name] = role
    return store


class Store:
    """A store opened for reading: `data` (time, variable, ensemble, cell) float32 and its description.

    Attributes:
        path: where it was opened.
        attributes: the zarr attributes.
        variables: names, in the order of the data.
        roles: `"forcing"` (input only), `"prognostic"` (input and output) or `"diagnostic"` (output only) by
            name. Without the attribute `roles`, computed forcings and constants are forcings, and all other
            variables are prognostic.
        dates: (time,) datetime64[s], evenly `frequency` apart, missing dates included.
        missing: (time,) bool, the dates that are declared missing.
        latitudes, longitudes: (cell,) float64, degrees.
        field_shape: shape of a field before it was flattened to cells.
        ensemble_size: number of members.
        statistics: `Statistics` of the variables over the statistics window.

    Raises:
        ValueError: on construction, naming the store and what is wrong with it.
    """

    def __init__(self, group: zarr.Group, path: str) -> None:
        self.path = path
        self._group = group
        self._chunks: dict[int, NDArray[np.float32]] = {}  # the last used is the last
        # A null attribute counts as absent.
        self.attributes: dict[str, Any] = {k: v for k, v in dict(group.attrs).items() if v is not None}
        if "_build" in self.attributes:
            raise ValueError(
                f"The store {path!r} is not finished. Run the command that creates it again to resume."
            )
        absent = [] if "variables" in self.attributes else ["the attribute variables"]
        for name in _REQUIRED:
            with reading(f"the array {name!r} of the store {path!r}"):
                absent += [name] if name not in group else []
        if absent:
            lacks = ", ".join(absent)
            raise ValueError(f"{path!r} is not a store in the layout of anemoi-datasets: it lacks {lacks}.")
        try:
            self._about = StoreAttributes.model_validate(self.attributes)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            self._damaged(f"the attribute {place}: {error.errors()[0]['msg']}")
        self.variables: tuple[str, ...] = self._about.variables
        self._data = open_array(group, "data", path)
        times, cells = self._check_shape()
        self.dates = self._values("dates", "datetime64[s]", times)
        self.latitudes = self._values("latitudes", np.float64, cells)
        self.longitudes = self._values("longitudes", np.float64, cells)
        if not (np.isfinite(self.latitudes).all() and np.isfinite(self.longitudes).all()):
            self._damaged("latitudes and longitudes must be finite")
        self.statistics = self._statistics("")
        self.frequency = even_frequency(self.dates, f"The store {path!r}")
        with reading(f"the attribute missing_dates of the store {path!r}"):
            missing = np.array(self._about.missing_dates, "datetime64[s]")
        self.missing: NDArray[np.bool_] = np.isin(self.dates, missing)
        forced = self.constants | {v for v in self.variables if self._metadata(v).computed_forcing}
        self.roles: dict[str, Role] = {
            name: "forcing" if name in forced else "prognostic" for name in self.variables
        }
        self.roles |= {name: role for name, role in self._about.roles.items() if name in self.variables}

    def _damaged(self, what: str) -> NoReturn:
        raise ValueError(
            f"The store {self.path!r} was cut short or is damaged: {what}. Make it again, or copy it again."
        )

    def _check_shape(self) -> tuple[int, int]:
        """The numbers of dates and of cells."""
        shape = self._data.shape
        if len(shape) != 4 or self._data.dtype.kind != "f" or shape[1] != len(self.variables):
            self._damaged(
                f"data has the shape {shape} and the type {self._data.dtype}, but must hold floating-point "
                f"numbers (time, variable, ensemble, cell) of {len(self.variables)} variables"
            )
        if math.prod(self.field_shape) != shape[3] or min(self.field_shape) < 1:
            self._damaged(f"the attribute field_shape is {list(self.field_shape)}, of {shape[3]} cells")
        if len(set(self.variables)) < len(self.variables):
            self._damaged("the attribute variables names a variable twice")
        return shape[0], shape[3]

    def _values(self, name: str, dtype: Any, size: int) -> NDArray[Any]:
        """The array `name`, which must have the shape (size,)."""
        array = open_array(self._group, name, self.path)
        if array.shape != (size,):
            shape = f"{self._data.shape} (time, variable, ensemble, cell)"
            self._damaged(f"data has the shape {shape}, {name} {array.shape}")
        with reading(f"the array {name!r} of the store {self.path!r}"):
            return np.asarray(array[...]).astype(dtype)

    def _statistics(self, prefix: str) -> Statistics:
        """The statistics in the arrays `{prefix}mean` and so on; NaN for a variable without any value."""
        arrays = {n: self._values(prefix + n, np.float64, len(self.variables)) for n in STATISTICS}
        stacked = np.stack(list(arrays.values()))
        empty = np.isnan(stacked).all(axis=0)
        wrong = ~empty & ~(np.isfinite(stacked).all(axis=0) & (arrays["stdev"] >= 0))
        if wrong.any():
            column = int(wrong.argmax())
            values = ", ".join(f"{name} {arrays[name][column]:g}" for name in STATISTICS)
            self._damaged(f"the statistics {prefix.rstrip('_')} of {self.variables[column]} are {values}")
        return Statistics(**arrays)

    def _metadata(self, variable: str) -> VariableAttributes:
        self._columns([variable])
        return self._about.variables_metadata.get(variable, VariableAttributes())

    def __repr__(self) -> str:
        return (
            f"Store({self.path!r}: {len(self.dates)} dates {show_date(self.dates[0])} to "
            f"{show_date(self.dates[-1])} every {lead_name(self.frequency)}, "
            f"{len(self.variables)} variables, {len(self.latitudes)} cells)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the store again: open files cannot be sent to it.
        return open_store, (self.path, self.roles)

    @property
    def field_shape(self) -> tuple[int, ...]:
        """Shape of a field before it was flattened: (latitude, longitude), or (cell,) if unstructured."""
        return self._about.field_shape or (self._data.shape[3],)

    @cached_property
    def constants(self) -> frozenset[str]:
        """The time-invariant variables, by either of the attributes that declare them."""
        flagged = {name for name in self.variables if self._metadata(name).constant_in_time}
        return frozenset(flagged | set(self._about.constant_fields).intersection(self.variables))

    @property
    def statistics_window(self) -> tuple[str, str] | None:
        """First and last date of the training period, over which statistics were taken; None if unknown."""
        start, end = self._about.statistics_start_date, self._about.statistics_end_date
        return (start, end) if start and end else None

    @property
    def ensemble_size(self) -> int:
        """Number of ensemble members."""
        return self._data.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the uncompressed data."""
        return 4 * self._data.size

    def lost_chunks(self) -> int:
        """Number of absent chunks whose dates are not declared missing. Lists the files of the store."""
        length = self._data.chunks[0]
        starts = range(0, len(self.dates), length)
        empty = sum(bool(self.missing[start : start + length].all()) for start in starts)
        expected = self._data.nchunks // len(starts) * (len(starts) - empty)
        return max(0, expected - self._data.nchunks_initialized)

    def with_roles(
        self, *, forcing: Sequence[str] = (), prognostic: Sequence[str] = (), diagnostic: Sequence[str] = ()
    ) -> Store:
        """The same store with other roles for the variables named; the others keep theirs.

        Raises:
            KeyError: if a variable is not in the store.
            ValueError: if a variable is named twice.
        """
        named = (*forcing, *prognostic, *diagnostic)
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"A variable has one role; given more than once: {', '.join(twice)}.")
        roles: dict[str, Any] = self.roles | dict.fromkeys(forcing, "forcing")
        roles |= dict.fromkeys(prognostic, "prognostic") | dict.fromkeys(diagnostic, "diagnostic")
        return open_store(self.path, roles)

    def units(self, variable: str) -> str:
        """Units of a variable, empty if unknown.

        Raises:
            KeyError: if the variable is not in the store.
        """
        return self._metadata(variable).units or ""

    def long_name(self, variable: str) -> str:
        """Name of a variable in words, or its short name.

        Raises:
            KeyError: if the variable is not in the store.
        """
        return self._metadata(variable).long_name or variable

    @cached_property
    def tendency_leads(self) -> tuple[str, ...]:
        """The leads of `tendency_statistics`, shortest first."""
        with reading(f"the names of the arrays of the store {self.path!r}"):
            names = "\n".join(self._group.array_keys())
        return tuple(sorted(re.findall("^statistics_tendencies_(.+)_mean$", names, re.M), key=lead_timedelta))

    def tendency_statistics(self, lead: str | np.timedelta64) -> Statistics:
        """Statistics of x(t) - x(t - lead) over the statistics window.

        Raises:
            KeyError: if the store has none for this lead.
        """
        name = lead_name(lead)
        if name not in self.tendency_leads:
            known = ", ".join(self.tendency_leads) or "none"
            raise KeyError(f"{self.path!r} has no tendency statistics for the lead {name!r}; it has {known}.")
        return self._statistics(f"statistics_tendencies_{name}_")

    def index(self, date: np.datetime64 | str) -> int:
        """Index of a date.

        Raises:
            KeyError: if the store has no such date.
        """
        wanted = parse_date(date).astype("datetime64[s]")
        steps, rest = divmod(wanted - self.dates[0], self.frequency)
        if rest or not 0 <= steps < len(self.dates):
            first, last = show_date(self.dates[0]), show_date(self.dates[-1])
            raise KeyError(
                f"The store {self.path!r} has no date {show_date(wanted)}; its dates run from {first} to "
                f"{last} every {lead_name(self.frequency)}."
            )
        return int(steps)

    def read(
        self, time_index: int | slice | Sequence[int] | np.ndarray, variables: Sequence[str] | None = None
    ) -> np.ndarray:
        """Read fields (time, variable, ensemble, cell) float32; those of missing dates are NaN.

        Args:
            time_index: a slice, several indices or one index into `dates`; `time` is kept for a single index.
            variables: names, in the order wanted; all by default.

        Raises:
            KeyError: if a variable is not in the store.
            IndexError: if a time index is out of range.
            ValueError: if a date that is not declared missing holds no data at all.
        """
        columns = self._columns(self.variables if variables is None else variables)
        times = np.atleast_1d(np.arange(len(self.dates))[time_index])
        if len(times) == 0:
            return np.empty((0, len(columns), *self._data.shape[2:]), np.float32)
        stored = self._stored(times)
        self._check_present(times, stored)
        values = np.ascontiguousarray(stored[:, columns], dtype=np.float32)
        values[self.missing[times]] = np.nan
        return values

    def _stored(self, times: NDArray[np.int64]) -> NDArray[np.float32]:
        """All variables at some times, (time, variable, ensemble, cell)."""
        size = self._data.chunks[0]
        if np.all(np.diff(times) == 1) and len(times) > size:
            return self._decode(slice(int(times[0]), int(times[-1]) + 1))
        if size == 1:
            return self._decode(times)
        numbers, rows = np.divmod(times, size)
        return np.stack([self._chunk(int(number))[row] for number, row in zip(numbers, rows, strict=True)])

    def _chunk(self, number: int) -> NDArray[np.float32]:
        """One chunk of dates. The last used are cached, as training reads dates in random order."""
        chunk = self._chunks.pop(number, None)
        if chunk is None:
            size = self._data.chunks[0]
            chunk = self._decode(slice(number * size, (number + 1) * size))
        self._chunks[number] = chunk
        while len(self._chunks) > 1 and sum(kept.nbytes for kept in self._chunks.values()) > CACHE_BYTES:
            del self._chunks[next(iter(self._chunks))]
        return chunk

    def _decode(self, times: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        dates = self.dates[times]
        where = f"from {show_date(dates[0])} to {show_date(dates[-1])}"
        with reading(f"the array 'data' of the store {self.path!r} {where}"):
            return np.asarray(self._data.oindex[times], np.float32)

    def _check_present(self, times: np.ndarray, stored: np.ndarray) -> None:
        # Zarr reads an absent chunk as NaN; the first cell is a cheap first test.
        suspects = np.isnan(stored[..., 0]).all(axis=(1, 2)) & ~self.missing[times]
        for time in np.flatnonzero(suspects):
            if np.isnan(stored[time]).all():
                date = show_date(self.dates[times[time]])
                self._damaged(f"{date} holds no data and is not declared missing")

    def _columns(self, variables: Sequence[str]) -> list[int]:
        unknown = [name for name in variables if name not in self.variables]
        if unknown:
            names, known = ", ".join(map(repr, unknown)), ", ".join(self.variables)
            raise KeyError(f"The store {self.path!r} has no variable {names}; it has {known}.")
        return [self.variables.index(name) for name in variables]

    def to_xarray(self) -> xr.Dataset:
        """The store as a lazy Dataset of variables (time, ensemble, cell) with their units and roles."""
        import dask.array as da
        import xarray as xr

        data = da.from_array(self._data, chunks=self._data.chunks)
        about = [{"units": self.units(name), "role": self.roles[name]} for name in self.variables]
        fields = {
            name: (("time", "ensemble", "cell"), data[:, column], about[column])
            for column, name in enumerate(self.variables)
        }
        coordinates = {
            "time": self.dates.astype("datetime64[ns]"),
            "latitude": ("cell", self.latitudes, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("cell", self.longitudes, {"units": "degrees_east", "standard_name": "longitude"}),
        }
        return xr.Dataset(fields, coordinates, {"field_shape": list(self.field_shape)})
