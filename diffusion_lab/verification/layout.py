"""The layout of forecasts, and of fields to compare them with: the truth, persistence, a climatology."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray


def by_lead_time(forecast: xr.Dataset) -> xr.Dataset:
    """A forecast with one start or several, with dimensions (start, lead_time, …).

    Args:
        forecast: with coordinates `lead_time` and `forecast_reference_time`, a scalar or along `start`.

    Raises:
        KeyError: if one of these coordinates is missing.
    """
    for name in ("lead_time", "forecast_reference_time"):
        if name not in forecast.coords:
            known = sorted(map(str, forecast.coords))
            raise KeyError(f"a forecast needs a coordinate {name!r}; it has {known}")
    if "time" in forecast.dims:
        forecast = forecast.swap_dims(time="lead_time")
    if "start" not in forecast.dims:
        forecast = forecast.expand_dims("start")
        start = forecast["forecast_reference_time"].values.reshape(1)
        forecast = forecast.assign_coords(forecast_reference_time=("start", start))
    return forecast.drop_vars(["time", "start"], errors="ignore").transpose("start", "lead_time", ...)


def fields_like(
    forecast: xr.Dataset,
    evaluate: Callable[[NDArray[np.datetime64], Sequence[str]], ArrayLike],
    *,
    at_start: bool = False,
) -> xr.Dataset:
    """Fields at the valid times of a forecast, such as the truth from a store, in its layout.

    Args:
        forecast: one start or several.
        evaluate: returns fields (N, variable, cell) for distinct, ascending dates (N,) and names of
            variables.
        at_start: take the fields at the start of each forecast instead: persistence.

    Returns:
        The forecast's variables with dimensions (start, lead_time, cell).
    """
    forecast = by_lead_time(forecast)
    names = [str(name) for name in forecast.data_vars]
    lead = forecast["lead_time"].values.astype("timedelta64[s]") * (not at_start)
    dates = forecast["forecast_reference_time"].values.astype("datetime64[s]")[:, None] + lead
    distinct, position = np.unique(dates, return_inverse=True)
    fields = np.asarray(evaluate(distinct, names))[position.reshape(dates.shape)]
    dims = ("start", "lead_time", "cell")
    kept = ("lead_time", "forecast_reference_time", "latitude", "longitude")
    variables = {name: (dims, fields[:, :, i]) for i, name in enumerate(names)}
    return xr.Dataset(variables, {name: forecast[name] for name in kept})
