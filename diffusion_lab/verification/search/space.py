"""The space of a sampler search, and the settings for a trial of Optuna.

Parameters are conditional: ρ belongs to the Karras schedule, and churn to some samplers. A parameter is
suggested only where it acts, so trials never differ in a parameter without effect.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from diffusion_lab.samplers import SAMPLERS
from diffusion_lab.sampling import PRESETS, SamplingSettings

if TYPE_CHECKING:
    from optuna import Trial

_SCHEDULES = ("karras", "exponential", "cosine", "linear")  # with three or four parameters
_CHURN = ("S_churn", "S_min", "S_max", "S_noise")


def _as_range(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


def _as_choices(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Range = Annotated[tuple[float, float], BeforeValidator(_as_range)]
Steps = Annotated[tuple[int, int], BeforeValidator(_as_range)]
Choices = Annotated[tuple[str, ...], BeforeValidator(_as_choices)]


class SearchSpace(BaseModel):
    """Lowest and highest value of each number, and the names to choose from; a single value is fixed.

    The defaults stay within the noise levels of the guide's training, 0.02 … 100.

    Attributes:
        sampler: names in `SAMPLERS`.
        schedule_type: "karras", "exponential", "cosine" or "linear".
        num_steps: solver steps N, also limited by the network calls of a search.
        sigma_max: first noise level, on a logarithmic scale.
        sigma_min: last noise level above 0, on a logarithmic scale.
        rho: ρ of the Karras schedule.
        S_churn: amount of churn; if the range begins at 0, trials also choose whether to churn.
        S_min: lowest level with churn, on a logarithmic scale.
        S_max: highest level with churn, on a logarithmic scale.
        S_noise: standard deviation of the added noise.

    Raises:
        ValueError: an unknown name, or a range that is empty or overlaps another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    sampler: Choices = tuple(SAMPLERS)
    schedule_type: Choices = _SCHEDULES
    num_steps: Steps = (3, 100)
    sigma_max: Range = (5.0, 100.0)
    sigma_min: Range = (0.02, 0.2)
    rho: Range = (3.0, 15.0)
    S_churn: Range = (0.0, 5.0)
    S_min: Range = (0.02, 1.0)
    S_max: Range = (1.0, 100.0)
    S_noise: Range = (1.0, 1.08)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, table in {"sampler": tuple(SAMPLERS), "schedule_type": _SCHEDULES}.items():
            names = getattr(self, key)
            if not names or set(names) - set(table):
                raise ValueError(f"{key} must name some of {', '.join(table)}, got {', '.join(names)}")
        for key in ("num_steps", "sigma_max", "sigma_min", "rho", *_CHURN):
            low, high = getattr(self, key)
            lowest = 0 if key == "S_churn" else 1 if key == "num_steps" else 1e-9
            if not lowest <= low <= high < math.inf:
                raise ValueError(f"{key} needs {lowest:g} ≤ low ≤ high, got {low:g} … {high:g}")
        for low, high in [("sigma_min", "sigma_max"), ("S_min", "S_max")]:
            if getattr(self, low)[1] > getattr(self, high)[0]:
                raise ValueError(f"{low} reaches above the lowest {high}: {self!r}")
        return self

    def within(self, max_calls: int) -> SearchSpace:
        """The space without the samplers that need more network calls than allowed.

        Raises:
            ValueError: if none is left.
        """
        low = self.num_steps[0]
        samplers = [name for name in self.sampler if calls_of(name, low) <= max_calls]
        if not samplers:
            needed = min(calls_of(name, low) for name in self.sampler)
            raise ValueError(f"{low} steps need {needed} network calls or more, but max_calls = {max_calls}")
        return self.model_copy(update={"sampler": tuple(samplers)})

    def suggest(self, trial: Trial, max_calls: int, defaults: SamplingSettings) -> SamplingSettings:
        """Let a trial choose settings with at most `max_calls` network calls.

        The trial chooses the number of calls, which is comparable between samplers; the number of steps is
        the largest possible.

        Args:
            trial: of Optuna.
            max_calls: limit of network calls for a forecast step.
            defaults: with the options that are not searched, such as noise_correlation.
        """
        sampler = trial.suggest_categorical("sampler", self.sampler)
        calls = trial.suggest_int("network_calls", min(self.num_steps[0], max_calls), max_calls)
        schedule = {
            "schedule_type": trial.suggest_categorical("schedule_type", self.schedule_type),
            "num_steps": self._steps_for(sampler, calls),
            "sigma_max": self._number(trial, "sigma_max", log=True),
            "sigma_min": self._number(trial, "sigma_min", log=True),
        }
        if schedule["schedule_type"] == "karras":
            schedule["rho"] = self._number(trial, "rho")
        params: dict[str, Any] = {"sampler": sampler}
        options = inspect.signature(SAMPLERS[sampler]).parameters
        if "S_churn" in options:
            params |= self._churn(trial)
        elif "S_noise" in options:
            params["S_noise"] = self._number(trial, "S_noise")
        return defaults.override(schedule, params)

    def guesses(self, max_calls: int) -> list[dict[str, Any]]:
        """Parameters to try first, from the literature and exact targets (see `samplers`).

        Each good sampler with the guide's schedule and the most calls, the best one also with half of them,
        and the churn of GenCast (Price et al. 2023, arXiv:2312.15796).
        """
        schedule = dict(PRESETS["guide"].noise_scheduler)
        del schedule["num_steps"]  # follows from the number of calls
        gencast = PRESETS["gencast"].diffusion_sampler
        names = ("deis", "unipc", "dpmpp_2m", "dpmpp_3m", "heun", "dpmpp_2s")
        wanted = [{"sampler": name, "network_calls": max_calls, "churn": False} for name in names]
        fewer = max((max_calls + 1) // 2, min(self.num_steps[0], max_calls))
        wanted.insert(1, {"sampler": "deis", "network_calls": fewer})
        wanted.append({"network_calls": max_calls, "churn": True, **gencast})
        return [self._clipped(schedule | guess) for guess in wanted if guess["sampler"] in self.sampler]

    def _steps_for(self, sampler: str, calls: int) -> int:
        low, high = self.num_steps
        fitting = [n for n in range(low, min(high, calls) + 1) if calls_of(sampler, n) <= calls]
        return max(fitting, default=low)

    def _churn(self, trial: Trial) -> dict[str, float]:
        low, high = self.S_churn
        if high == 0 or (low == 0 and not trial.suggest_categorical("churn", (False, True))):
            return {"S_churn": 0.0}
        log = {"S_min", "S_max"}
        return {key: self._number(trial, key, log=key in log) for key in _CHURN}

    def _number(self, trial: Trial, key: str, log: bool = False) -> float:
        """A number with three digits, so that printed settings are exact."""
        low, high = getattr(self, key)
        value = float(f"{trial.suggest_float(key, low, high, log=log):.3g}")
        return min(max(value, low), high)

    def _clipped(self, guess: Mapping[str, Any]) -> dict[str, Any]:
        inside = dict(guess)
        if inside["schedule_type"] not in self.schedule_type:
            inside["schedule_type"] = self.schedule_type[0]
        for key in inside.keys() & {"sigma_max", "sigma_min", "rho", *_CHURN}:
            low, high = getattr(self, key)
            inside[key] = min(max(inside[key], low), high)
        return inside


def network_calls(settings: SamplingSettings) -> int:
    """Network calls of one forecast step, counted by running the sampler without a network."""
    return list(settings.steps(lambda y, sigma: y, lambda draw: torch.zeros(1)))[-1].nfe


@functools.cache
def calls_of(sampler: str, num_steps: int) -> int:
    """Network calls of a sampler by name, which depend only on the number of steps."""
    schedule = {"schedule_type": "karras", "num_steps": num_steps, "sigma_max": 10.0, "sigma_min": 0.1}
    return network_calls(SamplingSettings(schedule, {"sampler": sampler}))


def describe(settings: SamplingSettings) -> str:
    """Settings on one line: `deis, karras, num_steps 18, sigma_max 80, …`."""
    schedule, sampler = dict(settings.noise_scheduler), dict(settings.diffusion_sampler)
    words = [sampler.pop("sampler"), schedule.pop("schedule_type")]
    if sampler.get("S_churn", 0.0) == 0:
        sampler = {key: value for key, value in sampler.items() if key not in _CHURN}
    return ", ".join(words + [f"{key} {value:g}" for key, value in (schedule | sampler).items()])
