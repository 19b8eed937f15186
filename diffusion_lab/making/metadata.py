"""The metadata of a store: what describes its fields, the checks, and the attributes that are written."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr

import diffusion_lab
from diffusion_lab.stores.attributes import Role, check_role
from diffusion_lab.stores.dates import even_frequency, lead_name, lead_timedelta, show_date
from diffusion_lab.stores.forcings import CONSTANT_FORCINGS


@dataclass(frozen=True)
class Variable:
    """A variable of a store.

    Attributes:
        name: such as `z500`.
        units: such as `m2 s-2`.
        role: forcing (input only), prognostic (both) or diagnostic (output only).
        long_name: such as `geopotential at 500 hPa`.
        constant_in_time: whether it is time-invariant.
        computed_forcing: whether it is computed from date and place alone.
        allow_nan: whether it may contain NaN (sea-surface temperature over land).
    """

    name: str
    units: str
    role: Role = "prognostic"
    long_name: str = ""
    constant_in_time: bool = False
    computed_forcing: bool = False
    allow_nan: bool = False

    def __post_init__(self) -> None:
        check_role(self.name, self.role)


def computed_forcings(names: Iterable[str]) -> list[Variable]:
    """Descriptions of some computed forcings, see `stores.forcings`."""
    return [
        Variable(name, "1", "forcing", constant_in_time=name in CONSTANT_FORCINGS, computed_forcing=True)
        for name in names
    ]


@dataclass(frozen=True)
class StoreMetadata:
    """Everything in a store but its fields.

    Attributes:
        variables: the variables, in the order of the data.
        dates: (time,) datetime64, evenly spaced, missing dates included.
        latitudes, longitudes: (cell,) degrees.
        field_shape: shape of a field before it was flattened to cells.
        resolution: name of the grid, such as `5.625` (degrees) or `N16` (Gaussian).
        statistics_window: start and end of the training period, over which statistics are taken; an end
            such as `2024` or `2024-12-31` includes all of that year or day.
        tendency_leads: leads of the tendency statistics; by default the frequency and its multiples among
            6 h, 12 h and 1 d.
        missing_dates: those of `dates` without data.
        attributes: further zarr attributes, such as `description`, `licence`, `attribution`, `recipe`.

    Raises:
        ValueError: if names, or latitudes, longitudes and field shape, are inconsistent.
    """

    variables: Sequence[Variable]
    dates: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    field_shape: tuple[int, ...]
    resolution: str
    statistics_window: tuple[np.datetime64 | str, np.datetime64 | str]
    tendency_leads: Sequence[str] | None = None
    missing_dates: Iterable[np.datetime64 | str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names, cells = [variable.name for variable in self.variables], len(self.latitudes)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"Variables must exist and have different names: {', '.join(names)}.")
        if len(self.longitudes) != cells or np.prod(self.field_shape) != cells:
            raise ValueError(
                f"{cells} latitudes, {len(self.longitudes)} longitudes and the field shape "
                f"{tuple(self.field_shape)} do not describe one grid."
            )


def missing_mask(metadata: StoreMetadata, dates: np.ndarray) -> np.ndarray:
    """Which dates are declared missing, (time,) bool.

    Raises:
        ValueError: if a missing date is not one of the dates.
    """
    missing = np.array(list(metadata.missing_dates), "datetime64[s]")
    unknown = missing[~np.isin(missing, dates)]
    if len(unknown):
        date, first, last = map(show_date, (unknown[0], dates[0], dates[-1]))
        raise ValueError(f"The missing date {date} is not one of the dates of the store, {first} to {last}.")
    return np.isin(dates, missing)


def tendency_steps(metadata: StoreMetadata, dates: np.ndarray) -> dict[str, int]:
    """The number of time steps of each tendency lead, shortest first.

    Raises:
        ValueError: if the dates are uneven, or a lead is not a multiple of their frequency.
    """
    frequency = even_frequency(dates, "the store to be written")
    leads = metadata.tendency_leads
    if leads is None:
        usual = [lead for lead in ("6h", "12h", "1d") if not lead_timedelta(lead) % frequency]
        leads = [lead_name(frequency), *usual]
    steps = {lead_name(lead): lead_timedelta(lead) / frequency for lead in leads}
    if odd := ", ".join(lead for lead, count in steps.items() if count % 1):
        raise ValueError(
            f"The tendency leads {odd} are not multiples of the frequency {lead_name(frequency)}."
        )
    return {lead: int(steps[lead]) for lead in sorted(steps, key=steps.__getitem__)}


def store_attributes(
    metadata: StoreMetadata, dates: np.ndarray, missing: np.ndarray, in_window: np.ndarray
) -> dict[str, Any]:
    """The attributes of the finished store, as anemoi-datasets names them; `roles` is ours."""
    variables = metadata.variables
    about = {
        variable.name: {"units": variable.units, "long_name": variable.long_name or variable.name}
        | {flag: True for flag in ("constant_in_time", "computed_forcing") if getattr(variable, flag)}
        for variable in variables
    }
    return {
        "version": "0.22",  # of the layout of anemoi-datasets
        "dimensions": ["dates", "variables", "ensembles", "values"],
        "variables": [variable.name for variable in variables],
        "variables_metadata": about,
        "roles": {variable.name: variable.role for variable in variables},
        "constant_fields": sorted(variable.name for variable in variables if variable.constant_in_time),
        "allow_nans": [variable.name for variable in variables if variable.allow_nan],
        "resolution": metadata.resolution,
        "field_shape": list(metadata.field_shape),
        "dtype": "float32",
        "frequency": lead_name(even_frequency(dates, "the store to be written")),
        "start_date": str(dates[0]),
        "end_date": str(dates[-1]),
        "missing_dates": [str(date) for date in dates[missing]],
        "statistics_start_date": str(dates[in_window][0]),
        "statistics_end_date": str(dates[in_window][-1]),
        "provenance": {
            "diffusion_lab": diffusion_lab.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "zarr": zarr.__version__,
        },
        **metadata.attributes,
    }
