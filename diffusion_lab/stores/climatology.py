"""A climatology of two harmonics: a baseline for forecasts and the reference of anomalies.

Per hour of the day, variable and cell, x(t) = c_0 + sum over k = 1, 2 of a_k cos(k t) + b_k sin(k t), where t
runs from 0 to 2π through the year. The annual and semi-annual cycles are fitted by least squares to all years
at once. Unlike a mean over a few years, they are free of the weather of single days.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusion_lab.stores.dates import period, show_date
from diffusion_lab.stores.reading import reading
from diffusion_lab.stores.store import Store

_BLOCK = 256  # dates read at once


@dataclass(frozen=True)
class Climatology:
    """Harmonic coefficients, in the units of the variables.

    Attributes:
        variables: names, in the order of `coefficients`.
        hours: (hour,) hours of the day, UTC, that were fitted.
        coefficients: (hour, 5, variable, cell) float32, of 1, cos t, sin t, cos 2t, sin 2t.
    """

    variables: tuple[str, ...]
    hours: NDArray[np.int64]
    coefficients: NDArray[np.float32]

    def evaluate(self, dates: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """Return the climatological fields (time, variable, cell) at `dates` (time,).

        Raises:
            KeyError: a date is at an hour of the day that was not fitted.
        """
        dates = np.atleast_1d(np.asarray(dates)).astype("datetime64[s]")
        hours = hour_of_day(dates)
        unknown = dates[~np.isin(hours, self.hours)]
        if len(unknown):
            known = ", ".join(map(str, self.hours))
            raise KeyError(
                f"No climatology at {show_date(unknown[0])}: it was fitted at the hours {known} UTC."
            )
        at_hour = self.coefficients[np.searchsorted(self.hours, hours)]
        return np.einsum("tk,tkvc->tvc", harmonics(dates), at_hour).astype(np.float32)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a compressed .npz file, which gets its name once it is complete."""
        variables, partial = np.array(self.variables), f"{fspath(path)}.partial"
        with open(partial, "wb") as file:
            np.savez_compressed(file, variables=variables, hours=self.hours, coefficients=self.coefficients)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Climatology:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is damaged.
        """
        with (
            reading(f"the climatology {str(path)!r}", "Copy it again, or remove it to have one fitted."),
            np.load(path, allow_pickle=False) as saved,
        ):
            variables, hours, coefficients = (saved[name] for name in ("variables", "hours", "coefficients"))
            if coefficients.shape[:-1] != (len(hours), 5, len(variables)):
                raise ValueError(f"the coefficients have the shape {coefficients.shape}")
            return cls(tuple(variables.tolist()), hours, coefficients)


def fit_climatology(
    store: Store, start: str, end: str, variables: Sequence[str] | None = None
) -> Climatology:
    """Fit the harmonics to the dates of `store` from `start` to `end`, by least squares in float64.

    Args:
        store: a store of one ensemble member, which is read in blocks.
        start: first date, such as `2020`.
        end: last date; `2024` includes all of that year.
        variables: names; by default all except the forcings.

    Raises:
        ValueError: an hour of the day has fewer than five dates in the window.
    """
    if variables is None:
        variables = [name for name in store.variables if store.roles[name] != "forcing"]
    first, last = period(start, end)
    chosen = np.flatnonzero((store.dates >= first) & (store.dates <= last) & ~store.missing)
    hours = np.unique(hour_of_day(store.dates[chosen]))
    normal = np.zeros((len(hours), 5, 5))
    right = np.zeros((len(hours), 5, len(variables), len(store.latitudes)))
    for begin in range(0, len(chosen), _BLOCK):
        block = chosen[begin : begin + _BLOCK]
        fields = store.read(block, variables)[:, :, 0].astype(np.float64)
        basis, hour = harmonics(store.dates[block]), hour_of_day(store.dates[block])
        for index, value in enumerate(hours):
            at_hour = basis[hour == value]
            normal[index] += at_hour.T @ at_hour
            right[index] += np.einsum("tk,tvc->kvc", at_hour, fields[hour == value])
    if len(hours) == 0 or (np.linalg.matrix_rank(normal) < 5).any():
        raise ValueError(
            f"{len(chosen)} dates from {start} to {end} do not determine five coefficients per hour."
        )
    shape = right.shape
    coefficients = np.linalg.solve(normal, right.reshape(*shape[:2], -1)).reshape(shape)
    return Climatology(tuple(variables), hours, coefficients.astype(np.float32))


def harmonics(dates: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Return 1, cos t, sin t, cos 2t, sin 2t (time, 5), with t = 2π times the fraction of the year."""
    year, second = dates.astype("datetime64[Y]"), np.timedelta64(1, "s")
    length = ((year + 1).astype("datetime64[s]") - year.astype("datetime64[s]")) / second
    t = 2 * np.pi * ((dates - year).astype("timedelta64[s]") / second) / length
    return np.stack([np.ones_like(t), np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t)], axis=-1)


def hour_of_day(dates: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Return the full hours (time,) since 00 UTC."""
    return (dates - dates.astype("datetime64[D]")).astype("timedelta64[h]").astype(np.int64)


def climatology_of(store: Store) -> Climatology:
    """The climatology of a store: the file beside it, else one fitted to the store's statistics window.

    The file beside `NAME.zarr` is `NAME_climatology.npz`. The shipped store has too few years to fit one.

    Raises:
        ValueError: the file is damaged or belongs to another grid, the store does not name its statistics
            window, or as `fit_climatology`.
    """
    beside = Path(store.path.removesuffix(".zarr") + "_climatology.npz")
    if beside.is_file():
        climatology = Climatology.load(beside)
        cells, expected = climatology.coefficients.shape[-1], len(store.latitudes)
        if cells != expected:
            why = f"has {cells} cells, the store {expected}. Remove it to have one fitted."
            raise ValueError(f"The climatology {str(beside)!r} {why}")
        return climatology
    if store.statistics_window is None:
        raise ValueError(
            f"The store {store.path!r} does not name its statistics window. Fit a climatology to dates of "
            f"your choice and keep it in {str(beside)!r}: fit_climatology(store, start, end).save(...)."
        )
    return fit_climatology(store, *store.statistics_window)
