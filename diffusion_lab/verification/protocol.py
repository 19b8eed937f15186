"""The protocol: forecasts from evenly spaced starts, scored against a store and simple forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from rich.progress import Progress

from diffusion_lab.data.climatology import Climatology, climatology_of
from diffusion_lab.data.dates import lead_name
from diffusion_lab.data.store import Store
from diffusion_lab.graphs import area_weights
from diffusion_lab.verification.forecasts import rank_histogram, verify
from diffusion_lab.verification.layout import by_lead_time, fields_like

if TYPE_CHECKING:
    from diffusion_lab.inference import Forecaster


def spread_out(dates: np.ndarray, count: int, every: np.timedelta64 | None = None) -> np.ndarray:
    """Choose start dates: `count` of them evenly, or one each `every` from the first.

    Args:
        dates: (start,) possible dates.
        count: how many at most.
        every: time between starts; evenly over all dates if left out.
    """
    if every is None:
        return dates[np.linspace(0, len(dates) - 1, min(count, len(dates))).round().astype(int)]
    wanted = dates[0] + np.arange(count) * every
    return wanted[np.isin(wanted, dates)]


def forecast_starts(
    forecaster: Forecaster,
    starts: Sequence[np.datetime64],
    steps: int,
    members: int,
    *,
    seed: int = 0,
    data: Store | str | None = None,
    noise_scheduler_params: Mapping[str, Any] | None = None,
    sampler_params: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Forecast from several starts; arguments as `Forecaster.forecast`.

    Returns:
        Dataset with dims (start, lead_time, ensemble, cell).
    """
    forecasts = []
    with Progress(transient=True, disable=not progress) as bar:
        task = bar.add_task(
            f"{len(starts)} forecasts of {steps} × {lead_name(forecaster.step)}", total=len(starts)
        )
        for start in starts:
            forecast = forecaster.forecast(
                start,
                steps,
                members,
                seed,
                data,
                noise_scheduler_params=noise_scheduler_params,
                sampler_params=sampler_params,
            )
            forecasts.append(by_lead_time(forecast))
            bar.advance(task)
    return xr.concat(forecasts, "start", combine_attrs="override")


def truth_of(forecast: xr.Dataset, store: Store, *, at_start: bool = False) -> xr.Dataset:
    """What a store holds at the valid times of a forecast (or at its starts), (start, lead_time, cell)."""

    def fields(dates: np.ndarray, names: Sequence[str]) -> np.ndarray:
        return store.read([store.index(date) for date in dates], names)[:, :, 0]

    return fields_like(forecast, fields, at_start=at_start)


def baselines_of(
    forecast: xr.Dataset, store: Store, climatology: Climatology | None = None
) -> dict[str, xr.Dataset]:
    """Persistence of the start, and the climatology of date and hour."""
    climatology = climatology or climatology_of(store)

    def fields(dates: np.ndarray, names: Sequence[str]) -> np.ndarray:
        return climatology.evaluate(dates)[:, [climatology.variables.index(name) for name in names]]

    return {
        "persistence": truth_of(forecast, store, at_start=True),
        "climatology": fields_like(forecast, fields),
    }


def score(forecast: xr.Dataset, store: Store) -> xr.Dataset:
    """Scores of a forecast against a store, see `verification.verify`, and its rank histograms.

    Args:
        forecast: (start, lead_time, ensemble, cell) or (time, ensemble, cell); variables the store lacks
            are an error.
        store: holds all valid times.

    Returns:
        (variable, lead_time) scores, and "rank_histogram" (variable, lead_time, rank).
    """
    truth = truth_of(forecast, store)
    weights = area_weights(store.latitudes, store.longitudes)
    scores = verify(forecast, truth, weights, baselines_of(forecast, store))
    return scores.assign(rank_histogram=rank_histogram(forecast, truth, weights))


def save_report(folder: str | Path, forecast: xr.Dataset, scores: xr.Dataset, store: Store) -> list[Path]:
    """Write the scores and the pictures of a verification.

    Returns:
        The files: scores.nc, and for each variable maps at the first and last lead time of the first start,
        rank histogram and scores against lead time, and a plume.
    """
    from matplotlib.figure import Figure

    from diffusion_lab import plots

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    forecast, truth = by_lead_time(forecast), truth_of(forecast, store)
    files = [folder / "scores.nc"]
    scores.to_netcdf(files[0], engine="h5netcdf")
    land = store.read(0, ["lsm"])[0, 0, 0] if "lsm" in store.variables else None
    for name in map(str, forecast.data_vars):
        for lead in forecast.lead_time.values[[0, -1]]:
            figure = plots.forecast_panel(forecast, truth, name, lead_time=lead, land=land)
            hours = int(lead / np.timedelta64(1, "h"))
            files.append(folder / f"{name}_maps_{hours:03d}h.png")
            figure.savefig(files[-1], dpi=110)
        figure = Figure(figsize=(13, 3.8), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        cell = plots.nearest_cell(forecast, *_a_place(store))
        plots.plume(left, forecast[name].isel(start=0, cell=cell), truth[name].isel(start=0, cell=cell))
        plots.score_vs_lead(middle, scores, name)
        plots.rank_histogram(right, scores.rank_histogram.sel(variable=name).mean("lead_time").values)
        figure.suptitle(f"{name}: plume at one place, score against lead time, rank histogram")
        files.append(folder / f"{name}_scores.png")
        figure.savefig(files[-1], dpi=110)
    return files


def _a_place(store: Store) -> tuple[float, float]:
    """Where the plume is drawn: 50° N, 0° E on the globe, else the middle of the region."""
    if np.ptp(store.latitudes) > 120:
        return 50.0, 0.0
    return float(np.mean(store.latitudes)), float(np.mean(store.longitudes))
