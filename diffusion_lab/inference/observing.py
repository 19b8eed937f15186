"""Observations of the atmosphere: tables of values at places, and their equivalents in a forecast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lab.denoisers import Denoiser
from diffusion_lab.guidance import MMPS, LinearOperator, Observations

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Method = Callable[[Denoiser, Observations], Denoiser]

_NUMBERS = ("latitude", "longitude", "value", "error")


@dataclass(frozen=True)
class ObservationTable:
    """Values of variables at places and times, in physical units, a row each.

    Attributes:
        time: (observation,) datetime64[s].
        latitude: (observation,) degrees north.
        longitude: (observation,) degrees east.
        variable: (observation,) names.
        value: (observation,) in the units of the variable.
        error: (observation,) standard deviation of the error, in the same units; positive.

    Raises:
        ValueError: a column has another length, a value is missing, or an error is not positive.
    """

    time: NDArray[np.datetime64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    variable: NDArray[np.str_]
    value: NDArray[np.float64]
    error: NDArray[np.float64]

    def __post_init__(self) -> None:
        lengths = {column.name: len(getattr(self, column.name)) for column in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of observations differ in length: {lengths}")
        for name in _NUMBERS:
            if len(bad := np.flatnonzero(~np.isfinite(getattr(self, name)))):
                raise ValueError(
                    f"row {bad[0] + 1} of the observations has no {name}; fill it or drop the row"
                )
        bad = np.flatnonzero((self.error <= 0) | (np.abs(self.latitude) > 90) | np.isnat(self.time))
        if len(bad):
            time, latitude, error = (column[bad[0]] for column in (self.time, self.latitude, self.error))
            raise ValueError(
                f"row {bad[0] + 1} of the observations: time {time}, latitude {latitude:g}, error {error:g}; "
                "it needs a date, a latitude in -90 … 90 and an error above 0"
            )

    def __len__(self) -> int:
        return len(self.value)

    def select(self, rows: NDArray) -> ObservationTable:
        """Some of the rows, by mask or index."""
        return ObservationTable(*(getattr(self, column.name)[rows] for column in fields(self)))

    def at(self, date: np.datetime64) -> ObservationTable:
        """The rows of one time."""
        return self.select(self.time == date)


def read_observations(
    source: str | Path | pd.DataFrame | xr.Dataset, units: dict[str, str] | None = None
) -> ObservationTable:
    """Read a table with the columns time, latitude, longitude, variable, value and error.

    Args:
        source: a CSV file, a netCDF file, a data frame, or a dataset whose variables lie along one dimension.
        units: of the forecaster's variables. A column `units`, if there is one, must agree.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or cannot be read, or units differ.
    """
    import pandas as pd

    frame = _frame(source)
    names = [column.name for column in fields(ObservationTable)]
    if lacking := [name for name in names if name not in frame]:
        raise ValueError(
            f"the observations lack the columns {', '.join(lacking)}; a table has {', '.join(names)} "
            f"and, if you like, units; this one has {', '.join(map(str, frame.columns))}"
        )
    if "units" in frame and units is not None:
        for row, (name, given) in enumerate(zip(frame["variable"], frame["units"], strict=True), 1):
            if name in units and str(given) != units[name]:
                raise ValueError(
                    f"row {row} of the observations gives {name} in {given}, the model has it in "
                    f"{units[name]}; convert the values"
                )
    try:
        return ObservationTable(
            time=pd.to_datetime(frame["time"], format="ISO8601").to_numpy().astype("datetime64[s]"),
            variable=frame["variable"].to_numpy(str),
            **{name: frame[name].to_numpy(np.float64) for name in _NUMBERS},
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"the observations cannot be read: {error}") from None


def _frame(source: str | Path | pd.DataFrame | xr.Dataset) -> pd.DataFrame:
    import pandas as pd
    import xarray as xr

    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, xr.Dataset):
        return source.to_dataframe().reset_index()
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} with observations")
    if path.suffix == ".nc":
        with xr.open_dataset(path) as dataset:
            return dataset.load().to_dataframe().reset_index()
    return pd.read_csv(path, skipinitialspace=True)


def interpolating_operator(
    table: ObservationTable, variables: Sequence[str], latitudes: np.ndarray, longitudes: np.ndarray
) -> LinearOperator:
    """The linear interpolation of states to the places of a table.

    Args:
        table: the observations.
        variables: the names along the last axis of states.
        latitudes: (cell,) degrees.
        longitudes: (cell,) degrees.

    Raises:
        ValueError: naming an observation of another variable, or outside the grid.
    """
    from diffusion_lab.graphs.interpolation import interpolation_weights  # scipy takes a second to import

    for row, name in enumerate(table.variable, 1):
        if name not in variables:
            known = ", ".join(variables)
            raise ValueError(f"row {row} of the observations is of '{name}'; the model has {known}")
    cells, weights = interpolation_weights((latitudes, longitudes), (table.latitude, table.longitude))
    numbers = [list(variables).index(name) for name in table.variable]
    return LinearOperator(torch.from_numpy(cells), torch.from_numpy(weights), torch.tensor(numbers))


def area_mean_operator(
    boxes: Sequence[tuple[float, float, float, float]],
    variable: int,
    latitudes: np.ndarray,
    longitudes: np.ndarray,
    area_weights: np.ndarray,
) -> LinearOperator:
    """Area-weighted means of a variable over boxes.

    Args:
        boxes: south, north, west and east of each, in degrees; they may cross 180° or 0°.
        variable: its index along the last axis of states.
        latitudes: (cell,) degrees.
        longitudes: (cell,) degrees.
        area_weights: (cell,) of `graphs.area_weights`.

    Raises:
        ValueError: a box holds no cell.
    """
    rows = []
    for south, north, west, east in boxes:
        eastwards = (longitudes - west) % 360 <= (east - west) % 360.001
        inside = (latitudes >= south) & (latitudes <= north) & eastwards
        if not inside.any():
            raise ValueError(f"no cell lies in {south:g} … {north:g}°N, {west:g} … {east:g}°E")
        rows.append(np.flatnonzero(inside))
    width = max(map(len, rows))
    cells, weights = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width))
    for i, row in enumerate(rows):
        cells[i, : len(row)] = row
        weights[i, : len(row)] = area_weights[row] / area_weights[row].sum()
    numbers = torch.full((len(rows),), variable)
    return LinearOperator(torch.from_numpy(cells), torch.from_numpy(weights), numbers)


@dataclass(frozen=True)
class Assimilation:
    """A `Guide` of a forecast: draws each step from its posterior given the observations of its valid time.

    Attributes:
        table: the observations; at other times the forecast is not changed.
        variables: the names along the last axis of states.
        latitudes: (cell,) degrees.
        longitudes: (cell,) degrees.
        method: makes the guided denoiser from a denoiser and observations.
    """

    table: ObservationTable
    variables: Sequence[str]
    latitudes: np.ndarray
    longitudes: np.ndarray
    method: Method = MMPS

    def __call__(
        self, denoiser: Denoiser, valid: np.datetime64, state: Callable[[Tensor], Tensor]
    ) -> Denoiser:
        """Guide the denoiser of the step that is valid at a time; see `rollout.Guide`."""
        now = self.table.at(valid)
        if len(now) == 0:
            return denoiser
        see = interpolating_operator(now, self.variables, self.latitudes, self.longitudes)
        values, error = torch.from_numpy(now.value), torch.from_numpy(now.error)
        return self.method(denoiser, Observations(values, lambda target: see(state(target)), error))
