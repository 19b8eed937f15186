"""What `diffusion-lab forecast` and `diffusion-lab verify` are asked for: checked first, then done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import xarray as xr
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, Field, PositiveInt, ValidationError
from rich.console import Console
from rich.progress import Progress

from diffusion_lab.assets import checkpoints, store_path
from diffusion_lab.commands.report import save_report
from diffusion_lab.config import ConfigError, Date, Group, Lead, explain
from diffusion_lab.inference.devices import choose_devices, starts_on_devices, states_on_devices
from diffusion_lab.inference.forecaster import Forecaster, load_forecaster
from diffusion_lab.inference.output import write_forecast
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.dates import lead_name, lead_timedelta, period, spread_out
from diffusion_lab.stores.module import forecast_starts as possible_starts
from diffusion_lab.stores.reading import check_group
from diffusion_lab.stores.store import Store, open_store
from diffusion_lab.verification import (
    run_protocol,
    score,
    score_table,
    shown_leads,
)


class PredictKwargs(Group):
    """Overrides of the checkpoint's sampling defaults; their keys are checked by `SamplingSettings`."""

    noise_scheduler_params: dict[str, Any] = Field(default_factory=dict)
    sampler_params: dict[str, Any] = Field(default_factory=dict)


class Request(Group):
    """Keys from the command line or a file."""

    predict_kwargs: PredictKwargs = PredictKwargs()
    data: str | None = None
    device: str = "auto"
    members: Annotated[int, Field(ge=1)] = 16
    seed: int = 0

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Self:
        """From words "FILE.yaml" and "key=value"; later ones win.

        Raises:
            ConfigError: naming an unknown key and the nearest known one, or a value that does not fit.
        """
        try:
            parts = [_setting(word) for word in settings]
            given = OmegaConf.to_container(OmegaConf.merge(*parts), resolve=True) if parts else {}
            return cls.model_validate(given)
        except OmegaConfBaseException as error:
            raise ConfigError(str(error)) from None
        except ValidationError as error:
            raise ConfigError("\n".join(explain(fault, cls) for fault in error.errors())) from None

    @property
    def overrides(self) -> dict[str, dict[str, Any]]:
        """`predict_kwargs` as keyword arguments of `SamplingSettings.override`."""
        return self.predict_kwargs.model_dump()


def _setting(word: str) -> DictConfig:
    """The keys of one word: "key=value", or the path of a YAML file."""
    if "=" in word:
        return OmegaConf.from_dotlist([word])
    try:
        keys = OmegaConf.load(word)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {word!r}; settings are FILE.yaml and key=value") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{word!r} cannot be read as YAML: {error}") from None
    if not isinstance(keys, DictConfig):
        raise ConfigError(f"{word!r} holds a list; write its settings as key: value")
    return keys


class ForecastRequest(Request):
    """Keys of `diffusion-lab forecast`."""

    checkpoint: str
    date: Annotated[str, BeforeValidator(str)]
    lead_time: Lead = "10d"
    output: str = "forecast.nc"
    devices: PositiveInt = 1


class VerifyRequest(Request):
    """Keys of `diffusion-lab verify`."""

    checkpoint: str | None = None
    forecast: str | None = None
    start: Date | None = None
    end: Date | None = None
    starts: PositiveInt = 26
    every: Lead | None = "14d"
    lead_time: Lead = "5d"
    output: str = "verification"


def run_forecast(request: ForecastRequest) -> None:
    """Make the forecast from each start, showing progress, and say where it is."""
    forecaster = load_forecaster(request.checkpoint, request.device if request.devices == 1 else "cpu")
    steps = steps_of(forecaster, request.lead_time)
    dates = [np.datetime64(parse_date(date), "s") for date in request.date.split(",")]
    settings, output = forecaster.settings.override(**request.overrides), Path(request.output)
    for date, states in zip(dates, _runs(request, settings, dates, steps), strict=True):
        began = time.monotonic()
        rollout = forecaster.rollout(date, steps, request.members, request.seed, settings, request.data)
        named = output if len(dates) == 1 else output.with_stem(f"{output.stem}-{date.astype('M8[h]')}")
        with Progress(transient=True) as bar:
            states = bar.track(states or rollout.states(), total=steps, description="steps")
            path = write_forecast(named, rollout, states)
        print(
            f"{path}: {request.members} members to {request.lead_time} from {date} "
            f"in {time.monotonic() - began:.1f} s"
        )


def _runs(
    request: ForecastRequest, settings: SamplingSettings, dates: list[np.datetime64], steps: int
) -> Iterator[Iterator[np.ndarray] | None]:
    """The states from each start where several devices share the members of one start, or the starts."""
    if request.devices == 1:
        return iter([None] * len(dates))
    arguments = steps, range(request.members)
    devices = choose_devices(request.devices, request.device)
    if len(dates) == 1:
        states = states_on_devices(
            request.checkpoint,
            devices,
            dates[0],
            *arguments,
            seed=request.seed,
            settings=settings,
            data=request.data,
        )
        return iter([states])
    return starts_on_devices(
        request.checkpoint,
        devices,
        dates,
        *arguments,
        seed=request.seed,
        settings=settings,
        data=request.data,
    )


def run_verify(request: VerifyRequest) -> None:
    """Make or read the forecast, print the table, write scores and report."""
    if (request.checkpoint is None) == (request.forecast is None):
        raise ConfigError(
            f"verify wants one of checkpoint=NAME and forecast=FILE; released: {', '.join(checkpoints())}"
        )
    if request.checkpoint is not None:
        forecast, scores, store, facts = _verify_checkpoint(request)
        title = f"{request.checkpoint}, {facts['Starts']}"
    else:
        if request.data is None:
            raise ConfigError("verify forecast=FILE needs data=STORE, the truth")
        path, store, title = Path(request.forecast), open_store(store_path(request.data)), request.forecast
        if path.suffix == ".zarr":
            check_group(str(path))
        forecast = xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path, engine="h5netcdf")
        scores, facts = score(forecast, store, progress=True), {"Forecast": request.forecast}
    Console().print(score_table(scores, title, shown_leads(scores)))
    facts["Truth"] = store.path
    _, report = save_report(request.output, forecast, scores, store, title=title, facts=facts)
    print(f"all lead times and pictures: {report.resolve()}")


def _verify_checkpoint(request: VerifyRequest) -> tuple[xr.Dataset, xr.Dataset, Store, dict[str, str]]:
    """Forecasts from the window of starts, their scores, the store with the truth, and what was done."""
    forecaster = load_forecaster(request.checkpoint, request.device)
    store = forecaster.reader(request.data).store
    steps = steps_of(forecaster, request.lead_time)
    asked = evaluation_window(forecaster, request.start, request.end)
    starts = _starts(forecaster, store, steps, request, asked)
    settings = forecaster.settings.override(**request.overrides)
    forecast, scores = run_protocol(
        forecaster,
        starts,
        steps,
        request.members,
        seed=request.seed,
        settings=settings,
        data=store,
        folder=Path(request.output) / "forecasts",
    )
    facts = {
        "Checkpoint": request.checkpoint,
        "Starts": " to ".join(asked),
        "Forecast step": lead_name(forecaster.step),
        **{
            group.replace("_", " ").capitalize(): ", ".join(f"{key} {value}" for key, value in values.items())
            for group, values in settings.as_dict().items()
        },
    }
    return forecast, scores, store, facts


def evaluation_window(forecaster: Forecaster, start: str | None, end: str | None) -> tuple[str, str]:
    """First and last start of the evaluation: as asked for, or those the checkpoint names, or else 2025."""
    named = forecaster.release.training.get("test_window", ("2025", "2025"))
    return start or named[0], end or named[1]


def _starts(
    forecaster: Forecaster, store: Store, steps: int, request: VerifyRequest, asked: tuple[str, str]
) -> np.ndarray:
    # All valid times must be in the store; the window is of the starts.
    window = period(*asked)
    dates = possible_starts(store, forecaster.step, forecaster.model.multistep_input, None)
    dates = dates[(dates >= window[0]) & (dates <= min(window[1], store.dates[-1] - steps * forecaster.step))]
    if len(dates) == 0:
        raise ConfigError(
            f"no forecast to {request.lead_time} from {asked[0]} to {asked[1]} in {store!r}; "
            "give start=… and end=… within its dates"
        )
    every = None if request.every is None else lead_timedelta(request.every)
    return spread_out(dates, request.starts, every)


def steps_of(forecaster: Forecaster, lead_time: str) -> int:
    """How many steps of the model reach a lead time.

    Raises:
        ConfigError: if it is no multiple of the step.
    """
    steps, rest = divmod(lead_timedelta(lead_time), forecaster.step)
    if rest or steps < 1:
        raise ConfigError(
            f"lead_time={lead_time} is no multiple of the model's step {lead_name(forecaster.step)}"
        )
    return int(steps)


def parse_date(text: str) -> str:
    """A date as ISO 8601; the compact form of the guide, 20250101T00:00:00, is understood too."""
    digits = text.strip().replace(" ", "T")
    if len(digits) >= 8 and digits[:8].isdigit():
        digits = f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    try:
        np.datetime64(digits)
    except ValueError:
        raise ConfigError(f"date={text} is no date; write it as 2025-01-01 or 2025-01-01T12") from None
    return digits
