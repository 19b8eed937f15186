"""The truth for a forecast and its baselines, from a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffusion_lab.stores.climatology import Climatology, climatology_of, hour_of_day
from diffusion_lab.stores.dates import spread_out
from diffusion_lab.stores.store import Store
from diffusion_lab.verification.events import Event
from diffusion_lab.verification.layout import by_lead_time, fields_like

Dates = NDArray[np.datetime64]

_SEASON = 45  # days before and after the day of the year
_FEWEST_MEMBERS, _MOST_MEMBERS = 10, 30
_DAY = np.timedelta64(1, "D")


def truth_of(forecast: xr.Dataset, store: Store, *, at_start: bool = False) -> xr.Dataset:
    """The fields of a store at the valid times of a forecast (or at its starts), (start, lead_time, cell)."""

    def fields(dates: Dates, names: Sequence[str]) -> NDArray[np.float32]:
        return store.read([store.index(date) for date in dates], names)[:, :, 0]

    return fields_like(forecast, fields, at_start=at_start)


def baselines_of(
    forecast: xr.Dataset, store: Store, climatology: Climatology | None = None
) -> dict[str, xr.Dataset]:
    """Persistence, climatology, and a climatological ensemble if the store has enough years."""
    climatology = climatology or climatology_of(store)

    def fields(dates: Dates, names: Sequence[str]) -> NDArray[np.float32]:
        return climatology.evaluate(dates)[:, _columns(climatology, names)]

    baselines = {
        "persistence": truth_of(forecast, store, at_start=True),
        "climatology": fields_like(forecast, fields),
    }
    ensemble = climatological_ensemble(forecast, store, climatology)
    return baselines if ensemble is None else baselines | {"climatological_ensemble": ensemble}


def climatological_ensemble(
    forecast: xr.Dataset, store: Store, climatology: Climatology
) -> xr.Dataset | None:
    """An ensemble of states from other years, at the season and hour of the valid times.

    The anomalies of up to 30 dates within 45 days of the day of the year are added to the climatology of the
    valid time, so that the seasonal cycle does not add to the spread.

    Returns:
        (start, lead_time, ensemble, cell), or None if a valid time has fewer than ten such dates.
    """
    lead = by_lead_time(forecast)
    valid = lead["forecast_reference_time"].values[:, None] + lead["lead_time"].values
    times = valid.astype("datetime64[s]").ravel()
    chosen = [_same_season(store, date) for date in times]
    members = min(_MOST_MEMBERS, *map(len, chosen))
    if members < _FEWEST_MEMBERS:
        return None
    chosen = [spread_out(dates, members) for dates in chosen]
    distinct, position = np.unique(np.concatenate(chosen), return_inverse=True)
    names = [str(name) for name in lead.data_vars]
    columns = _columns(climatology, names)
    states = store.read([store.index(date) for date in distinct], names)[:, :, 0]
    anomalies = states - climatology.evaluate(distinct)[:, columns]
    normal = climatology.evaluate(times)[:, columns]
    position = position.reshape(-1, members)
    coords = {name: lead[name] for name in ("lead_time", "forecast_reference_time")}
    dims = ("start", "lead_time", "ensemble", "cell")
    return xr.Dataset(
        {
            name: (dims, (anomalies[position, i] + normal[:, None, i]).reshape(*valid.shape, members, -1))
            for i, name in enumerate(names)
        },
        coords,
    )


def extremes(ensemble: xr.Dataset) -> dict[str, Event]:
    """The events below the first and above the last decile of a climatological ensemble.

    Cells where a member is missing have no threshold, and so no event.
    """
    # With skipna NumPy takes a thousand times as long.
    low, high = (ensemble.quantile(q, "ensemble", skipna=False).drop_vars("quantile") for q in (0.1, 0.9))
    return {"below 10 %": Event(low, above=False), "above 90 %": Event(high)}


def _same_season(store: Store, date: np.datetime64) -> Dates:
    """Dates of other calendar years within the season, at the same hour."""
    dates = store.dates[~store.missing]
    dates = dates[hour_of_day(dates) == hour_of_day(np.array([date]))]
    dates = dates[dates.astype("datetime64[Y]") != date.astype("datetime64[Y]")]
    apart = np.abs(_day_of_year(dates) - _day_of_year(np.array([date])))
    return dates[np.minimum(apart, 365.25 - apart) <= _SEASON]


def _day_of_year(dates: Dates) -> NDArray[np.float64]:
    since: NDArray[np.timedelta64] = np.subtract(dates, dates.astype("datetime64[Y]"))
    return since / _DAY


def _columns(climatology: Climatology, names: Sequence[str]) -> list[int]:
    return [climatology.variables.index(name) for name in names]
