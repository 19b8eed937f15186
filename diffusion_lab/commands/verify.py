"""`diffusion-lab verify`: a checkpoint or a forecast file, scored against a store and simple forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import xarray as xr
from pydantic import Field, PositiveInt, model_validator

from diffusion_lab.assets import checkpoints, store_path
from diffusion_lab.commands.console import console
from diffusion_lab.commands.report import save_report
from diffusion_lab.commands.requests import EnsembleRequest, evaluation_window, steps_of
from diffusion_lab.config import ConfigError, Date, Lead
from diffusion_lab.inference.forecaster import Forecaster, load_forecaster
from diffusion_lab.stores.dates import Period, lead_name, show_date, spread_out
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.stores.reading import check_group
from diffusion_lab.stores.store import Store, open_store
from diffusion_lab.verification import run_protocol, score, score_table, shown_leads


class VerifyRequest(EnsembleRequest):
    """Score a checkpoint, or a forecast file, against a store and simple forecasts.

    These are persistence, climatology, the weather of other years, and the deterministic forecast of the same
    network (one network call a step).

      diffusion-lab verify checkpoint=example-tendency         the protocol: test year, 26 starts, 16 members
      diffusion-lab verify checkpoint=example-state starts=4 members=4 lead_time=1d a quick look
      diffusion-lab verify forecast=forecast.nc data=example

    A table appears on the screen; OUTPUT/report.html holds all lead times and pictures, OUTPUT/scores.nc the
    numbers. Forecasts are kept in OUTPUT/forecasts: if it is stopped, the same command resumes where it was.
    """

    checkpoint: str | None = Field(None, description="a released name or a path; forecasts are made from it")
    forecast: Path | None = Field(None, description="or a forecast file (.nc or .zarr); then data is needed")
    start: Date | None = Field(
        None, description="first date of the starts, if not that of the checkpoint's test window, or of 2025"
    )
    end: Date | None = Field(None, description="last date, likewise")
    starts: PositiveInt = Field(26, description="how many starts")
    every: Lead | None = Field(
        np.timedelta64(14, "D"), description="time between starts; null spreads them over the window"
    )
    lead_time: Lead = Field(np.timedelta64(5, "D"), description="how far to forecast")
    members: PositiveInt = Field(16, description="ensemble size")
    output: Path = Field(
        Path("verification"), description="folder of scores.nc, report.html and the forecasts"
    )

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (self.checkpoint is None) == (self.forecast is None):
            raise ValueError(
                f"verify needs either checkpoint=NAME or forecast=FILE; released: {', '.join(checkpoints())}"
            )
        if self.forecast is not None and self.data is None:
            raise ValueError("verify forecast=FILE needs data=STORE, the truth")
        return self


def run_verify(request: VerifyRequest) -> None:
    """Make or read the forecast, print the table, write scores and report."""
    if request.checkpoint is not None:
        forecast, scores, store, facts = _verify_checkpoint(request, request.checkpoint)
        title = f"{request.checkpoint}, {facts['Starts']}"
    else:
        assert request.forecast is not None
        assert request.data is not None
        path, store, title = request.forecast, open_store(store_path(request.data)), str(request.forecast)
        if path.suffix == ".zarr":
            check_group(str(path))
        forecast = xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path, engine="h5netcdf")
        scores, facts = score(forecast, store, progress=True), {"Forecast": title}
    console().print(score_table(scores, title, shown_leads(scores)))
    facts["Truth"] = store.path
    _, report = save_report(request.output, forecast, scores, store, title=title, facts=facts)
    print(f"all lead times and pictures: {report.resolve()}")


def _verify_checkpoint(
    request: VerifyRequest, checkpoint: str
) -> tuple[xr.Dataset, xr.Dataset, Store, dict[str, str]]:
    """Forecasts from the window of starts, their scores, the store with the truth, and what was done."""
    forecaster = load_forecaster(checkpoint, request.device)
    store = forecaster.reader(request.data).store
    steps = steps_of(forecaster, request.lead_time)
    window = evaluation_window(forecaster, request.start, request.end)
    starts = _starts(forecaster, store, steps, request, window)
    settings = forecaster.settings.override(**request.overrides)
    forecast, scores = run_protocol(
        forecaster,
        starts,
        steps,
        request.members,
        seed=request.seed,
        settings=settings,
        data=store,
        folder=request.output / "forecasts",
    )
    facts = {
        "Checkpoint": checkpoint,
        "Starts": " to ".join(dict.fromkeys(str(np.datetime64(starts[i], "D")) for i in (0, -1))),
        "Forecast step": lead_name(forecaster.step),
        **{
            group.replace("_", " ").capitalize(): ", ".join(f"{key} {value}" for key, value in values.items())
            for group, values in settings.as_dict().items()
        },
    }
    return forecast, scores, store, facts


def _starts(
    forecaster: Forecaster, store: Store, steps: int, request: VerifyRequest, window: Period
) -> np.ndarray:
    # All valid times must be in the store; the window is of the starts.
    dates = forecast_starts(store, forecaster.step, forecaster.model.multistep_input, None)
    last = min(window.last, store.dates[-1] - steps * forecaster.step)
    dates = dates[(dates >= window.first) & (dates <= last)]
    if len(dates) == 0:
        raise ConfigError(
            f"no forecast to {lead_name(request.lead_time)} from {show_date(window.first)} to "
            f"{show_date(window.last)} in {store!r}; give start=… and end=… within its dates"
        )
    return spread_out(dates, request.starts, request.every)
