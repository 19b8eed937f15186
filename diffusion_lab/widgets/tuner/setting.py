"""What the tuner's controls say: which forecast is made, and how it is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from diffusion_lab.assets import checkpoints
from diffusion_lab.inference import Forecaster
from diffusion_lab.samplers import SAMPLERS
from diffusion_lab.sampling import PRESETS, SamplingSettings, options_of
from diffusion_lab.schedules import SCHEDULES
from diffusion_lab.spelling import nearest
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.stores.store import Store

SCHEDULE_KEYS = ("schedule_type", "num_steps", "sigma_max", "sigma_min", "rho")
SAMPLER_KEYS = ("sampler", "S_churn", "S_min", "S_max", "S_noise", "noise_correlation")


def _controls(settings: SamplingSettings) -> dict[str, Any]:
    """Settings as values of controls: options without a control are left out."""
    given = {"noise_correlation": 0.0, **settings.noise_scheduler, **settings.diffusion_sampler}
    return {name: value for name, value in given.items() if name in SCHEDULE_KEYS + SAMPLER_KEYS}


GUIDE = _controls(PRESETS["guide"])


@dataclass(frozen=True)
class Setting:
    """One position of all controls that change the forecast; it may be a key of a dictionary.

    Attributes:
        checkpoint: a released name or a path.
        device: such as "cpu" or "cuda".
        date: start, ISO 8601.
        steps: forecast steps.
        members: how many members.
        seed: of the noise.

    The others are the names of the schedules' and samplers' options.
    """

    checkpoint: str
    device: str
    date: str
    steps: int = 1
    members: int = 8
    seed: int = 0
    schedule_type: str = "karras"
    num_steps: int = 20
    sigma_max: float = 100.0
    sigma_min: float = 0.02
    rho: float = 7.0
    sampler: str = "heun"
    S_churn: float = 0.0
    S_min: float = 0.0
    S_max: float = float("inf")
    S_noise: float = 1.0
    noise_correlation: float = 0.0

    def changed(self, **values: Any) -> Setting:
        """The setting with some values replaced: dates in any of numpy's spellings, names between spaces.

        Raises:
            KeyError: naming an unknown control and the nearest known one.
        """
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                raise KeyError(f"there is no control {name!r}{nearest(name, known)}")
        if "date" in values:
            values["date"] = str(np.datetime64(values["date"], "h"))
        if "checkpoint" in values:
            values["checkpoint"] = str(values["checkpoint"]).strip()
        return replace(self, **values)

    def summary(self) -> str:
        """The forecast and its sampling, in a line."""
        groups = (self.predict_kwargs[key] for key in ("sampler_params", "noise_scheduler_params"))
        options = ", ".join(f"{name}={value!r}" for group in groups for name, value in group.items())
        return f"{Path(self.checkpoint).stem}, {self.date}, {self.steps} × {self.members} members: {options}"

    @property
    def predict_kwargs(self) -> dict[str, dict[str, Any]]:
        """Keyword arguments of `Forecaster.forecast`: the options that the schedule and the sampler take."""
        return {
            "noise_scheduler_params": self._taken(SCHEDULE_KEYS, SCHEDULES.get(self.schedule_type)),
            "sampler_params": self._taken(SAMPLER_KEYS, SAMPLERS.get(self.sampler)),
        }

    def sampling(self, forecaster: Forecaster) -> SamplingSettings:
        """How a forecaster samples: options without a control are the checkpoint's.

        Raises:
            ValueError: as `SamplingSettings`.
        """
        return forecaster.settings.override(**self.predict_kwargs)

    def _taken(self, keys: tuple[str, ...], function: Any) -> dict[str, Any]:
        taken = [] if function is None else options_of(function)  # an unknown name is the forecaster's error
        return {key: getattr(self, key) for key in keys if key == keys[0] or key in taken}

    def difference(self, other: Setting) -> dict[str, Any]:
        """What is set otherwise than in `other`."""
        mine, theirs = asdict(self), asdict(other)
        return {name: value for name, value in mine.items() if value != theirs[name]}

    def check(self, forecaster: Forecaster) -> None:
        """Refuse what the forecaster would refuse.

        Raises:
            ValueError: a value out of range, in the words of the schedule or sampler.
        """
        for name in ("steps", "members", "num_steps"):
            if not isinstance(getattr(self, name), int | np.integer) or getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be an integer ≥ 1")
        self.sampling(forecaster)
        if self.S_min > self.S_max or self.S_churn < 0 or self.S_noise < 0:
            raise ValueError(
                f"need 0 ≤ S_churn, S_noise and S_min ≤ S_max, got {self.S_min = }, {self.S_max = }"
            )


def date_to_begin_with(forecaster: Forecaster, store: Store) -> str:
    """A start three quarters of the way through the store."""
    dates = forecast_starts(store, forecaster.step, forecaster.model.multistep_input, None)
    return str(dates[len(dates) * 3 // 4].astype("datetime64[h]"))


def defaults_of(forecaster: Forecaster) -> dict[str, Any]:
    """The checkpoint's sampling defaults, by the names of controls."""
    return GUIDE | _controls(forecaster.settings)


def presets_of(checkpoint: str, forecaster: Forecaster) -> dict[str, dict[str, Any]]:
    """Values of controls by the preset's name; a searched optimum is there if the checkpoint brings one.

    That is the `predict_kwargs.yaml` of `diffusion-lab tune`, put beside a checkpoint, released or your own:
    `NAME.predict_kwargs.yaml` beside `NAME.safetensors`.
    """
    presets = {
        "checkpoint's defaults": defaults_of(forecaster),
        "guide's defaults": dict(GUIDE),
        "GenCast's": _controls(PRESETS["gencast"]),
    }
    found = Path(checkpoints().get(checkpoint, checkpoint)).with_suffix(".predict_kwargs.yaml")
    if found.is_file():
        searched = yaml.safe_load(found.read_text())["predict_kwargs"]
        presets["searched optimum"] = GUIDE | _controls(forecaster.settings.override(**searched))
    return presets


def flat(predict_kwargs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The options of the schedule, then those of the sampler, in one dictionary: no name is in both."""
    return {**predict_kwargs["noise_scheduler_params"], **predict_kwargs["sampler_params"]}
