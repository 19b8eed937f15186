"""The layout of forecasts, and fields laid out like them: the truth, persistence, a climatology."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray


def by_lead_time(forecast: xr.Dataset) -> xr.Dataset:
    """The forecast with dimensions (start, lead_time, …), whether it has one start or several.

    Args:
        forecast: with coordinates `lead_time` and `forecast_reference_time`, a scalar or along `start`.

    Raises:
        KeyError: if one of these coordinates is missing.
    """
    for name in ("lead_time", "forecast_reference_time"):
        if name not in forecast.coords:
            raise KeyError(
                f"a forecast needs a coordinate {name!r}; it has {sorted(map(str, forecast.coords))}"
            )
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
    """Fields for the valid times of a forecast, such as the truth from a store, laid out like it.

    Args:
        forecast: one start or several.
        evaluate: from distinct, ascending dates (N,) and the names of the forecast's variables to their
            fields (N, variable, cell).
        at_start: take the fields of the start of each forecast instead, which is the persistence forecast.

    Returns:
        The forecast's variables with dimensions (start, lead_time, cell).
    """
    forecast = by_lead_time(forecast)
    names = [str(name) for name in forecast.data_vars]
    lead = forecast["lead_time"].values.astype("timedelta64[s]")
    dates = forecast["forecast_reference_time"].values.astype("datetime64[s]")[:, None] + lead * (
        not at_start
    )
    distinct, position = np.unique(dates, return_inverse=True)
    fields = np.asarray(evaluate(distinct, names))[position.reshape(dates.shape)]
    coords = {
        name: forecast[name] for name in ("lead_time", "forecast_reference_time", "latitude", "longitude")
    }
    return xr.Dataset(
        {name: (("start", "lead_time", "cell"), fields[:, :, i]) for i, name in enumerate(names)},
        coords=coords,
    )
