"""Reading a store: a zarr group in the layout of anemoi-datasets, never loaded whole."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import zarr

from diffusion_lab.stores.dates import even_frequency, lead_name, lead_timedelta, parse_date, show_date
from diffusion_lab.stores.statistics import STATISTICS, Statistics

if TYPE_CHECKING:
    import xarray as xr

Role = Literal["forcing", "prognostic", "diagnostic"]
ROLES: tuple[Role, ...] = get_args(Role)

# Decoded chunks that a store keeps: a season of the example store, and little beside a network.
CACHE_BYTES = 128 * 2**20

_REQUIRED = ("data", "dates", "latitudes", "longitudes", *STATISTICS)


def open_store(path: str | PathLike[str], roles: Mapping[str, Role] | None = None) -> Store:
    """Open a store for reading.

    Args:
        path: a local path or any URL that fsspec understands, of a zarr v2 or v3 group.
        roles: roles of some variables, in place of the store's own.

    Raises:
        FileNotFoundError: if there is no zarr group at `path`.
        ValueError: if it is not such a store, or one that was cut short; see `Store`.
    """
    url = fspath(path).removeprefix("file://")
    try:
        group = zarr.open_group(url, mode="r")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No zarr store at {url!r}.") from error
    store = Store(group, url)
    return store.with_roles(**_by_role(roles)) if roles else store


def _by_role(roles: Mapping[str, Role]) -> dict[str, list[str]]:
    unknown = {name: role for name, role in roles.items() if role not in ROLES}
    if unknown:
        raise ValueError(f"Unknown roles {unknown}; a role is one of {', '.join(ROLES)}.")
    return {role: [name for name, given in roles.items() if given == role] for role in ROLES}


class Store:
    """A store opened for reading: `data` (time, variable, ensemble, cell) float32 and what describes it.

    Attributes:
        path: where it was opened.
        attributes: the zarr attributes.
        variables: names, in the order of the data.
        roles: name to `"forcing"` (input only), `"prognostic"` (input and output), `"diagnostic"` (output
            only). From the attribute `roles`, else computed forcings and constants are forcings and all
            the others prognostic.
        dates: (time,) datetime64[s], evenly `frequency` apart, missing dates included.
        missing: (time,) bool, the dates that are declared missing.
        latitudes, longitudes: (cell,) float64, degrees.
        field_shape: shape of a field before it was flattened to cells.
        ensemble_size: number of members.
        statistics: `Statistics` of the variables over the statistics window.

    Raises:
        ValueError: on construction, naming what is wrong with the store.
    """

    def __init__(self, group: zarr.Group, path: str) -> None:
        self.path = path
        self.attributes: dict[str, Any] = dict(group.attrs)
        self._group = group
        self._chunks: OrderedDict[int, np.ndarray] = OrderedDict()
        if "_build" in self.attributes:
            raise ValueError(
                f"The store {path!r} is not finished. Run the command that creates it again to resume."
            )
        absent = [name for name in _REQUIRED if name not in group]
        if absent or "variables" not in self.attributes:
            raise ValueError(
                f"{path!r} is no store in the layout of anemoi-datasets: it lacks "
                f"{', '.join(absent or ['the attribute variables'])}."
            )
        self._data: zarr.Array = group["data"]
        self.variables: tuple[str, ...] = tuple(self.attributes["variables"])
        self.dates: np.ndarray = group["dates"][:].astype("datetime64[s]")
        self.latitudes: np.ndarray = group["latitudes"][:].astype(np.float64)
        self.longitudes: np.ndarray = group["longitudes"][:].astype(np.float64)
        self.statistics = Statistics(**{name: group[name][:].astype(np.float64) for name in STATISTICS})
        self._check_shapes()
        self.frequency = even_frequency(self.dates, f"store {path!r}")
        self.missing = np.isin(
            self.dates, np.array(self.attributes.get("missing_dates", []), "datetime64[s]")
        )
        self.roles: dict[str, Role] = self._stored_roles()

    def _check_shapes(self) -> None:
        cells = len(self.latitudes)
        expected = (len(self.dates), len(self.variables), self._data.shape[2], cells)
        if self._data.shape != expected or len(self.longitudes) != cells:
            raise ValueError(
                f"The store {self.path!r} was cut short or is inconsistent: data has the shape "
                f"{self._data.shape} (time, variable, ensemble, cell), but there are "
                f"{len(self.dates)} dates, {len(self.variables)} variables, {cells} latitudes and "
                f"{len(self.longitudes)} longitudes."
            )
        for name in STATISTICS:
            if getattr(self.statistics, name).shape != (len(self.variables),):
                raise ValueError(f"The store {self.path!r}: {name} does not hold one value per variable.")

    def _stored_roles(self) -> dict[str, Role]:
        stored = self.attributes.get("roles", {})
        metadata = self.attributes.get("variables_metadata", {})

        def role(name: str) -> Role:
            forced = name in self.constants or metadata.get(name, {}).get("computed_forcing")
            return stored.get(name, "forcing" if forced else "prognostic")

        return {name: role(name) for name in self.variables}

    def __repr__(self) -> str:
        return (
            f"Store({self.path!r}: {len(self.dates)} dates {show_date(self.dates[0])} to "
            f"{show_date(self.dates[-1])} every {lead_name(self.frequency)}, "
            f"{len(self.variables)} variables, {len(self.latitudes)} cells)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the store anew rather than receiving its handles.
        return open_store, (self.path, self.roles)

    @property
    def field_shape(self) -> tuple[int, ...]:
        """Shape of a field before it was flattened: (latitude, longitude), or (cell,) if unstructured."""
        return tuple(self.attributes.get("field_shape") or (len(self.latitudes),))

    @cached_property
    def constants(self) -> frozenset[str]:
        """The variables that are the same field at all dates, whichever attribute says so."""
        metadata = self.attributes.get("variables_metadata", {})
        listed = self.attributes.get("constant_fields", [])
        return frozenset(
            name
            for name in self.variables
            if name in listed or metadata.get(name, {}).get("constant_in_time")
        )

    @property
    def ensemble_size(self) -> int:
        """Number of ensemble members."""
        return self._data.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of all the data as they are read, uncompressed."""
        return 4 * self._data.size

    def lost_chunks(self) -> int:
        """Number of chunks, other than those of missing dates, that are not there; lists the files."""
        length = self._data.chunks[0]
        starts = range(0, len(self.dates), length)
        empty = sum(bool(self.missing[start : start + length].all()) for start in starts)
        others = math.prod(
            -(-size // chunk) for size, chunk in zip(self._data.shape[1:], self._data.chunks[1:], strict=True)
        )
        return max(0, (len(starts) - empty) * others - self._data.nchunks_initialized)

    def with_roles(
        self,
        *,
        forcing: Sequence[str] = (),
        prognostic: Sequence[str] = (),
        diagnostic: Sequence[str] = (),
    ) -> Store:
        """The same store with other roles for the variables named; the others keep theirs.

        Raises:
            KeyError: if a variable is not in the store.
            ValueError: if a variable is named twice.
        """
        given = {"forcing": forcing, "prognostic": prognostic, "diagnostic": diagnostic}
        named = [name for names in given.values() for name in names]
        self._columns(named)
        if len(set(named)) < len(named):
            twice = sorted({name for name in named if named.count(name) > 1})
            raise ValueError(f"A variable has one role; given more than once: {', '.join(twice)}.")
        other = Store(self._group, self.path)
        other.roles = self.roles | {name: role for role, names in given.items() for name in names}
        return other

    def units(self, variable: str) -> str:
        """Units of a variable, empty if the store does not say.

        Raises:
            KeyError: if the variable is not in the store.
        """
        self._columns([variable])
        return self.attributes.get("variables_metadata", {}).get(variable, {}).get("units") or ""

    @cached_property
    def tendency_leads(self) -> tuple[str, ...]:
        """The leads of `tendency_statistics`, shortest first."""
        names = (name.removeprefix("statistics_tendencies_") for name in self._group.array_keys())
        leads = {name.removesuffix("_mean") for name in names if name.endswith("_mean")}
        return tuple(sorted(leads, key=lead_timedelta))

    def tendency_statistics(self, lead: str | np.timedelta64) -> Statistics:
        """Statistics of x(t) - x(t - lead) over the statistics window.

        Raises:
            KeyError: if the store has none for this lead.
        """
        name = lead_name(lead)
        if name not in self.tendency_leads:
            raise KeyError(
                f"The store {self.path!r} has no tendency statistics for the lead {name!r}; it has "
                f"{', '.join(self.tendency_leads) or 'none'}."
            )
        arrays = {stat: self._group[f"statistics_tendencies_{name}_{stat}"][:] for stat in STATISTICS}
        return Statistics(**{stat: values.astype(np.float64) for stat, values in arrays.items()})

    def index(self, date: np.datetime64 | str) -> int:
        """Index of a date.

        Raises:
            KeyError: if the store has no such date.
        """
        wanted = parse_date(date).astype("datetime64[s]")
        steps, rest = divmod(wanted - self.dates[0], self.frequency)
        if rest or not 0 <= steps < len(self.dates):
            raise KeyError(
                f"The store {self.path!r} has no date {show_date(wanted)}; its dates run from "
                f"{show_date(self.dates[0])} to {show_date(self.dates[-1])} "
                f"every {lead_name(self.frequency)}."
            )
        return int(steps)

    def read(
        self, time_index: int | slice | Sequence[int] | np.ndarray, variables: Sequence[str] | None = None
    ) -> np.ndarray:
        """Read some dates.

        Args:
            time_index: an index, a slice or several indices into `dates`.
            variables: which variables, in which order; all of them by default.

        Returns:
            (time, variable, ensemble, cell) float32, also for a single index; missing dates are NaN.

        Raises:
            KeyError: if a variable is not in the store.
            IndexError: if a time index is out of range.
            ValueError: if a date that is not declared missing holds no data at all.
        """
        columns = self._columns(variables if variables is not None else self.variables)
        times = np.atleast_1d(np.arange(len(self.dates))[time_index])
        if len(times) == 0:
            return np.empty((0, len(columns), *self._data.shape[2:]), np.float32)
        stored = self._stored(times)
        self._check_present(times, stored)
        values = np.ascontiguousarray(stored[:, columns], dtype=np.float32)
        values[self.missing[times]] = np.nan
        return values

    def _stored(self, times: np.ndarray) -> np.ndarray:
        """All variables at some times, (time, variable, ensemble, cell)."""
        if np.all(np.diff(times) == 1) and len(times) > self._data.chunks[0]:
            return self._data[times[0] : times[-1] + 1]
        if self._data.chunks[0] == 1:
            return self._data.oindex[times]
        numbers, rows = np.divmod(times, self._data.chunks[0])
        return np.stack([self._chunk(number)[row] for number, row in zip(numbers, rows, strict=True)])

    def _chunk(self, number: int) -> np.ndarray:
        """One chunk of dates. The last used are kept: training reads dates in random order."""
        if number in self._chunks:
            self._chunks.move_to_end(number)
            return self._chunks[number]
        size = self._data.chunks[0]
        self._chunks[number] = self._data[number * size : (number + 1) * size]
        while len(self._chunks) > 1 and sum(chunk.nbytes for chunk in self._chunks.values()) > CACHE_BYTES:
            self._chunks.popitem(last=False)
        return self._chunks[number]

    def _check_present(self, times: np.ndarray, stored: np.ndarray) -> None:
        # Zarr reads an absent chunk as NaN; looking at the first cell finds the suspects for next to nothing.
        suspects = np.isnan(stored[..., 0]).all(axis=(1, 2)) & ~self.missing[times]
        for time in np.flatnonzero(suspects):
            if np.isnan(stored[time]).all():
                raise ValueError(
                    f"The store {self.path!r} was cut short: {show_date(self.dates[times[time]])} holds no "
                    "data and is not declared missing. Create or copy the store again."
                )

    def _columns(self, variables: Sequence[str]) -> list[int]:
        unknown = [name for name in variables if name not in self.variables]
        if unknown:
            raise KeyError(
                f"The store {self.path!r} has no variable {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(self.variables)}."
            )
        return [self.variables.index(name) for name in variables]

    def to_xarray(self) -> xr.Dataset:
        """The store as a lazy Dataset: one variable (time, ensemble, cell) each, with its units and role."""
        import dask.array as da
        import xarray as xr

        data = da.from_array(self._data, chunks=self._data.chunks)
        fields = {
            name: (
                ("time", "ensemble", "cell"),
                data[:, column],
                {"units": self.units(name), "role": self.roles[name]},
            )
            for column, name in enumerate(self.variables)
        }
        coordinates = {
            "time": self.dates.astype("datetime64[ns]"),
            "latitude": ("cell", self.latitudes, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("cell", self.longitudes, {"units": "degrees_east", "standard_name": "longitude"}),
        }
        return xr.Dataset(fields, coordinates, {"field_shape": list(self.field_shape)})
