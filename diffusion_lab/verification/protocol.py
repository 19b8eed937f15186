"""The protocol: forecasts from evenly spaced starts, scored against a store and baselines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from rich.progress import Progress

from diffusion_lab.graphs import area_weights
from diffusion_lab.graphs.weights import is_limited_area
from diffusion_lab.inference.forecaster import Forecaster
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.climatology import climatology_of
from diffusion_lab.stores.dates import lead_name
from diffusion_lab.stores.store import Store
from diffusion_lab.verification.baselines import baselines_of, extremes, truth_of
from diffusion_lab.verification.forecasts import case_means
from diffusion_lab.verification.layout import by_lead_time
from diffusion_lab.verification.spectra import PowerSpectrum
from diffusion_lab.verification.summary import summarise


def forecast_ensembles(
    forecaster: Forecaster,
    starts: Sequence[np.datetime64],
    steps: int,
    members: int | Sequence[int],
    *,
    seed: int = 0,
    settings: SamplingSettings | None = None,
    data: Store | str | Path | None = None,
    progress: bool = True,
    folder: str | Path | None = None,
) -> xr.Dataset:
    """Forecast an ensemble from each of several starts.

    Further arguments as `Forecaster.rollout`. With a `folder`, the forecast of each start is kept in a file
    there, reused by later calls with the same weights and settings, and read lazily.

    Returns:
        Dataset with dims (start, lead_time, ensemble, cell).
    """
    settings = settings or forecaster.settings
    store = forecaster.reader(data).store
    if folder is not None:
        asked = {"steps": steps, "members": str(members), "seed": seed, "store": store.path}
        folder = Path(folder) / _key(forecaster, settings, asked)
        folder.mkdir(parents=True, exist_ok=True)
    forecasts, about = [], f"{len(starts)} forecasts of {steps} × {lead_name(forecaster.step)}"
    with Progress(transient=True, disable=not progress) as bar:
        for start in bar.track(starts, description=about):
            path = folder and folder / f"{np.datetime_as_string(start, 'm').replace(':', '')}.nc"
            if path is None or not path.exists():
                rollout = forecaster.rollout(start, steps, members, seed, settings, store)
                forecast = by_lead_time(rollout.dataset())
            if path is not None:
                if not path.exists():
                    # Renamed only when complete: a run may stop in the middle of a file.
                    forecast.to_netcdf(path.with_suffix(".partial"), engine="h5netcdf")
                    path.with_suffix(".partial").rename(path)
                forecast = xr.open_dataset(path, engine="h5netcdf", chunks={}, decode_timedelta=True)
            forecasts.append(forecast)
    return xr.concat(forecasts, "start", combine_attrs="override", data_vars="all")


def deterministic_forecast(
    forecaster: Forecaster,
    starts: Sequence[np.datetime64],
    steps: int,
    *,
    seed: int = 0,
    data: Store | str | Path | None = None,
    progress: bool = True,
    folder: str | Path | None = None,
) -> xr.Dataset:
    """The deterministic forecast of the same network: a rollout with one call a step.

    With one noise level and no churn, the sample is D(y; sigma_max), the mean of the forecast distribution;
    sigma_max is the first level of the checkpoint's schedule. Arguments as `forecast_ensembles`.

    Returns:
        Dataset with dims (start, lead_time, cell).
    """
    schedule = {"schedule_type": "manual", "sigmas": [forecaster.settings.sigmas()[0].item()]}
    settings = forecaster.settings.override(schedule, {"sampler": "euler"})
    kept: dict[str, Any] = {"seed": seed, "data": data, "progress": progress, "folder": folder}
    one_call = forecast_ensembles(forecaster, starts, steps, [0], settings=settings, **kept)
    return one_call.isel(ensemble=0, drop=True)


def run_protocol(
    forecaster: Forecaster,
    starts: Sequence[np.datetime64],
    steps: int,
    members: int,
    *,
    seed: int = 0,
    settings: SamplingSettings | None = None,
    data: Store | str | Path | None = None,
    progress: bool = True,
    folder: str | Path | None = None,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Forecast from several starts and score the forecasts, also against the deterministic one.

    Arguments as `forecast_ensembles`.

    Returns:
        The forecast, (start, lead_time, ensemble, cell), and its scores, see `score`.
    """
    store = forecaster.reader(data).store
    kept: dict[str, Any] = {"seed": seed, "data": store, "progress": progress, "folder": folder}
    single = deterministic_forecast(forecaster, starts, steps, **kept)
    forecast = forecast_ensembles(forecaster, starts, steps, members, settings=settings, **kept)
    return forecast, score(forecast, store, {"deterministic": single}, progress=progress)


def score(
    forecast: xr.Dataset,
    store: Store,
    baselines: Mapping[str, xr.Dataset] | None = None,
    *,
    progress: bool = False,
) -> xr.Dataset:
    """Scores of a forecast against a store and baselines, with confidence intervals, see `summary.summarise`.

    One start is in memory at a time. Baselines are persistence, climatology, and a climatological ensemble if
    the store has enough years for all starts; its extremes define the events. Only global fields have
    spectra.

    Args:
        forecast: (start, lead_time, ensemble, cell) or (time, ensemble, cell).
        store: with its variables at all valid times.
        baselines: further forecasts by name in the same layout, such as the deterministic one.
        progress: show a bar.
    """
    forecast = by_lead_time(forecast)
    weights = area_weights(store.latitudes, store.longitudes)
    limited = is_limited_area(store.latitudes, store.longitudes)
    spectrum = None if limited else PowerSpectrum(store.latitudes, store.longitudes)
    climatology = climatology_of(store)
    means = []
    with Progress(transient=True, disable=not progress) as bar:
        for i in bar.track(range(forecast.sizes["start"]), description="scores"):
            one = forecast.isel(start=[i])
            compared = baselines_of(one, store, climatology)
            ensemble = compared.get("climatological_ensemble")
            further = {name: by_lead_time(other).isel(start=[i]) for name, other in (baselines or {}).items()}
            events = None if ensemble is None else extremes(ensemble)
            case: dict[str, Any] = {"climatology": compared["climatology"], "events": events}
            case |= {"baselines": compared | further, "spectrum": spectrum}
            means.append(case_means(one, truth_of(one, store), weights, **case))
    # Only scores that all starts have: the others would be averages over fewer starts.
    common = [name for name in means[0].data_vars if all(name in case for case in means)]
    return summarise(xr.concat([case[common] for case in means], "start", combine_attrs="override"))


def _key(forecaster: Forecaster, settings: SamplingSettings, asked: Mapping[str, Any]) -> str:
    """A hash of everything a forecast depends on: the weights and the settings."""
    document = json.dumps([asked, settings.as_dict()], sort_keys=True, default=str)
    digest = hashlib.blake2b(document.encode(), digest_size=8)
    for tensor in forecaster.model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
