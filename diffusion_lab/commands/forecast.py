"""`diffusion-lab forecast`: an ensemble forecast, from one start or several, written to files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt
from rich.progress import Progress

from diffusion_lab.commands.requests import EnsembleRequest, steps_of
from diffusion_lab.config.values import Date, Distinct, Lead, Written
from diffusion_lab.inference.destination import check_destination
from diffusion_lab.inference.devices import choose_devices, starts_on_devices, states_on_devices
from diffusion_lab.inference.forecaster import load_forecaster
from diffusion_lab.inference.output import write_forecast
from diffusion_lab.stores.dates import lead_name


def _listed(value: Any) -> Any:
    return str(value).split(",") if type(value) in (str, int) else value


def _numbered(value: Any) -> Any:
    if type(value) is not int:
        return value
    if value < 1:
        raise ValueError("an ensemble has at least one member")
    return list(range(value))


Dates = Annotated[list[Date], Distinct, BeforeValidator(_listed), Written("dates")]
Members = Annotated[
    list[NonNegativeInt],
    Field(min_length=1),
    Distinct,
    BeforeValidator(_numbered),
    Written("integer, or list"),
]


class ForecastRequest(EnsembleRequest):
    """Make an ensemble forecast and write it to a file.

      diffusion-lab forecast checkpoint=example-tendency date=2025-01-01 members=16 output=forecast.nc
      diffusion-lab forecast run.yaml members=50         keys from a file, overridden on the command line
      diffusion-lab forecast checkpoint=example-state date=2025-01-01,2025-02-01 members=[0,7]

    The file is written during the forecast, and gets its name only when it is complete.
    """

    checkpoint: str = Field(description="a released name, or the path of a .safetensors file")
    date: Dates = Field(description="start, such as 2025-01-01 or 2025-01-01T12; several give a file each")
    lead_time: Lead = Field(np.timedelta64(10, "D"), description="how far to forecast")
    members: Members = Field(16, description="ensemble size, or a list as in [0,7]", validate_default=True)
    output: Path = Field(Path("forecast.nc"), description="NAME.nc or NAME.zarr", validate_default=True)
    overwrite: bool = Field(False, description="whether to replace existing forecasts")
    devices: PositiveInt = Field(1, description="GPUs or CPU processes that share the members or starts")

    def outputs(self) -> list[Path]:
        """The file of each start."""
        if len(self.date) == 1:
            return [self.output]
        hours = [date.astype("datetime64[h]") for date in self.date]
        return [self.output.with_stem(f"{self.output.stem}-{hour}") for hour in hours]


def run_forecast(request: ForecastRequest) -> None:
    """Make the forecast from each start, showing progress, and say where it is."""
    for path in request.outputs():
        check_destination(path, request.overwrite)
    one, name, members = request.devices == 1, request.checkpoint, request.members
    forecaster = load_forecaster(name, request.device if one else "cpu")
    steps = steps_of(forecaster, request.lead_time)
    settings = forecaster.settings.override(**request.overrides)
    starts = [date.astype("datetime64[s]") for date in request.date]
    shared: Iterable[Iterator[NDArray[np.float32]] | None] = [None] * len(starts)
    if not one:  # several devices share the starts, or the members of one start
        devices = choose_devices(request.devices, request.device)
        options: dict[str, Any] = {"seed": request.seed, "settings": settings, "data": request.data}
        if len(starts) > 1:
            shared = starts_on_devices(name, devices, starts, steps, members, **options)
        else:
            shared = [states_on_devices(name, devices, starts[0], steps, members, **options)]
    for path, start, elsewhere in zip(request.outputs(), starts, shared, strict=True):
        began = time.monotonic()
        rollout = forecaster.rollout(start, steps, members, request.seed, settings, request.data)
        with Progress(transient=True) as bar:
            states = bar.track(elsewhere or rollout.states(), total=steps, description="steps")
            write_forecast(path, rollout, states, overwrite=request.overwrite)
        print(
            f"{path}: {len(members)} members to {lead_name(request.lead_time)} from {start} "
            f"in {time.monotonic() - began:.1f} s"
        )
