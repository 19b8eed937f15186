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
from diffusion_lab.inference.forecaster import load_forecaster
from diffusion_lab.stores.dates import lead_name, show_date, spread_out
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.stores.reading import check_group
from diffusion_lab.stores.store import Store, open_store
from diffusion_lab.verification import run_protocol, score, score_table, shown_leads


class VerifyRequest(EnsembleRequest):
    """Score a checkpoint, or a forecast file, against a store and simple forecasts.

    The simple forecasts are persistence, climatology, states of other years, and the deterministic forecast
    of the same network (one network call a step).

      diffusion-lab verify checkpoint=example-tendency         the protocol: test year, 26 starts, 16 members
      diffusion-lab verify checkpoint=example-state starts=4 members=4 lead_time=1d a quick look
      diffusion-lab verify forecast=forecast.nc data=example

    A table is printed; OUTPUT/report.html has all lead times and pictures, OUTPUT/scores.nc all numbers.
    Forecasts are kept in OUTPUT/forecasts: if it is stopped, the same command resumes it.
    """

    checkpoint: str | None = Field(None, description="a released name or a path; forecasts are made from it")
    forecast: Path | None = Field(None, description="or a forecast file (.nc or .zarr); then data is needed")
    start: Date | None = Field(None, description="first start; default: of the test window, or 2025")
    end: Date | None = Field(None, description="last start; default: of the test window, or 2025")
    starts: PositiveInt = Field(26, description="number of starts")
    every: Lead | None = Field(np.timedelta64(14, "D"), description="time between starts; null: spread out")
    lead_time: Lead = Field(np.timedelta64(5, "D"), description="how far to forecast")
    members: PositiveInt = Field(16, description="ensemble size")
    output: Path = Field(Path("verification"), description="folder of scores, report and forecasts")

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
        assert request.forecast is not None and request.data is not None  # see `VerifyRequest`
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
    """Forecasts, their scores, the store with the truth, and facts for the report."""
    forecaster = load_forecaster(checkpoint, request.device)
    store, step = forecaster.reader(request.data).store, forecaster.step
    steps = steps_of(forecaster, request.lead_time)
    window = evaluation_window(forecaster, request.start, request.end)
    settings = forecaster.settings.override(**request.overrides)
    dates = forecast_starts(store, step, forecaster.model.multistep_input, None)
    # The window is that of the starts; the store must hold all valid times.
    dates = dates[(dates >= window.first) & (dates <= min(window.last, store.dates[-1] - steps * step))]
    if len(dates) == 0:
        raise ConfigError(
            f"no forecast to {lead_name(request.lead_time)} from {show_date(window.first)} to "
            f"{show_date(window.last)} in {store!r}; give start=… and end=… within its dates"
        )
    forecast, scores = run_protocol(
        forecaster,
        spread_out(dates, request.starts, request.every),
        steps,
        request.members,
        seed=request.seed,
        settings=settings,
        data=store,
        folder=request.output / "forecasts",
    )
    facts = {
        "Checkpoint": checkpoint,
        "Starts": " to ".join(str(date.astype("datetime64[D]")) for date in window),
        "Forecast step": lead_name(step),
    }
    for group, values in settings.as_dict().items():
        words = ", ".join(f"{key} {value}" for key, value in values.items())
        facts[group.replace("_", " ").capitalize()] = words
    return forecast, scores, store, facts
