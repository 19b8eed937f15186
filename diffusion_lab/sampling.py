"""How to sample: a schedule and a solver by name, with their options; overridden key by key, strictly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.denoisers import Denoiser
from diffusion_lab.samplers import SAMPLERS, Step
from diffusion_lab.samplers.contract import solver_dtype
from diffusion_lab.schedules import SCHEDULES
from diffusion_lab.spelling import closest

_GIVEN_BY_US = ("denoiser", "y", "sigmas", "noise")
_CORRELATION = "noise_correlation"  # of every sampler: it says which noise is drawn, not what is done with it


@dataclass(frozen=True)
class SamplingSettings:
    """A noise schedule and a sampler, as the guide's `inference_defaults` spell them.

    Args:
        noise_scheduler: "schedule_type", a name in `SCHEDULES`, and that function's arguments.
        diffusion_sampler: "sampler", a name in `SAMPLERS`, that sampler's options, and "noise_correlation",
            in [0, 1): how much of a member's noise lives on in the next forecast step (default 0).

    Raises:
        ValueError: an unknown name or option, or a value the schedule refuses; the message lists what is
            allowed.
    """

    noise_scheduler: Mapping[str, Any]
    diffusion_sampler: Mapping[str, Any]

    def __post_init__(self) -> None:
        _check("noise_scheduler", self.noise_scheduler, "schedule_type", SCHEDULES)
        _check("diffusion_sampler", self.diffusion_sampler, "sampler", SAMPLERS)
        try:
            self.sigmas()
        except TypeError as error:
            raise ValueError(f"noise_scheduler {dict(self.noise_scheduler)}: {error}") from None
        if not 0 <= self.noise_correlation < 1:
            raise ValueError(f"{_CORRELATION} = {self.noise_correlation} must be at least 0 and below 1")
        try:  # a sampler checks its options when it starts
            next(self.steps(lambda y, sigma: 0 * y, lambda draw: torch.zeros(1)))
        except TypeError as error:
            raise ValueError(
                f"diffusion_sampler {dict(self.diffusion_sampler)}: {error}; infinity is written .inf"
            ) from None

    def override(
        self,
        noise_scheduler_params: Mapping[str, Any] | None = None,
        sampler_params: Mapping[str, Any] | None = None,
    ) -> SamplingSettings:
        """The same settings with some keys replaced (the guide's `predict_kwargs`).

        Where another schedule or sampler is chosen, those of the present options that it does not know are
        dropped; what is given here is always checked.

        Raises:
            ValueError: as the class.
        """
        return SamplingSettings(
            _merge(self.noise_scheduler, noise_scheduler_params or {}, "schedule_type", SCHEDULES),
            _merge(self.diffusion_sampler, sampler_params or {}, "sampler", SAMPLERS),
        )

    def with_num_steps(self, num_steps: int) -> SamplingSettings:
        """With another number of solver steps, shared out as before; levels given one by one stay."""
        before = self.noise_scheduler
        if "num_steps" not in before:
            return self
        changed = {"num_steps": num_steps}
        if before.get("num_steps_above"):  # of `piecewise`, which has two steps at least below the split
            above = round(before["num_steps_above"] * num_steps / before["num_steps"])
            changed["num_steps_above"] = min(max(above, 1), num_steps - 2)
        return self.override(changed)

    @property
    def noise_correlation(self) -> float:
        """Of a member's noise between successive forecast steps, see `noise.MemberNoise`."""
        return self.diffusion_sampler.get(_CORRELATION, 0.0)

    def sigmas(self) -> Tensor:
        """The noise levels, float64, num_steps + 1 values down to 0."""
        options = dict(self.noise_scheduler)
        return SCHEDULES[options.pop("schedule_type")](**options)

    def steps(self, denoiser: Denoiser, noise: Callable[[int], Tensor]) -> Iterator[Step]:
        """Start from pure noise and walk down the schedule, one `Step` a solver step.

        Args:
            denoiser: D(y; σ).
            noise: noise(0) is the start of unit variance, (batch, 1, ensemble, grid, variable); later draws
                are asked for where the sampler adds noise.
        """
        options = dict(self.diffusion_sampler)
        solver = SAMPLERS[options.pop("sampler")]
        options.pop(_CORRELATION, None)
        if "noise" in inspect.signature(solver).parameters:
            options["noise"] = noise
        sigmas = self.sigmas()
        start = noise(0)
        start = sigmas[0].item() * start.to(solver_dtype(start.device))
        return solver(denoiser, start, sigmas, **options)

    def sample(self, denoiser: Denoiser, noise: Callable[[int], Tensor]) -> Tensor:
        """The last state of `steps`, float32."""
        with torch.inference_mode():
            for step in self.steps(denoiser, noise):  # noqa: B007
                pass
        return step.state.float()

    @property
    def predict_kwargs(self) -> dict[str, dict[str, Any]]:
        """Every option as an override: the `predict_kwargs` block of an inference config."""
        return {
            "noise_scheduler_params": dict(self.noise_scheduler),
            "sampler_params": dict(self.diffusion_sampler),
        }

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain dictionaries, as in a config or a checkpoint."""
        return {
            "noise_scheduler": dict(self.noise_scheduler),
            "diffusion_sampler": dict(self.diffusion_sampler),
        }


def options_of(function: Callable) -> list[str]:
    """The options of a schedule or a sampler that settings may give."""
    names = inspect.signature(function).parameters
    if "denoiser" not in names:  # a schedule, which may well be given its `sigmas`
        return list(names)
    return [*(name for name in names if name not in _GIVEN_BY_US), _CORRELATION]


def _required(function: Callable) -> list[str]:
    parameters = inspect.signature(function).parameters
    return [
        name
        for name in options_of(function)
        if name in parameters and parameters[name].default is inspect.Parameter.empty
    ]


def _check(what: str, given: Mapping[str, Any], name_key: str, table: Mapping[str, Callable]) -> None:
    name = given.get(name_key)
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{what}.{name_key} is {name!r}; it must be one of {', '.join(table)}")
    allowed = options_of(table[name])
    lacking = [key for key in _required(table[name]) if key not in given]
    if lacking:
        raise ValueError(f"{what} {name!r} needs {', '.join(lacking)}")
    for key in given:
        if key != name_key and key not in allowed:
            near = closest(key, allowed)
            hint = f"; did you mean {near!r}?" if near else "."
            raise ValueError(f"{what} {name!r} has no option {key!r}{hint} It takes: {', '.join(allowed)}")
        if isinstance(given[key], bool):
            raise ValueError(f"{key} = {given[key]} of {what} is not a number")


def _merge(
    defaults: Mapping[str, Any], given: Mapping[str, Any], name_key: str, table: Mapping[str, Callable]
) -> dict[str, Any]:
    name = given.get(name_key, defaults[name_key])
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{name_key} is {name!r}; it must be one of {', '.join(table)}")
    allowed = {name_key, *options_of(table[name])}
    return {key: value for key, value in defaults.items() if key in allowed} | dict(given)


PRESETS = {
    # Anemoi's guide: 50 steps of Heun's method without churn, 99 network calls.
    "guide": SamplingSettings(
        {"schedule_type": "karras", "sigma_max": 100.0, "sigma_min": 0.02, "rho": 7.0, "num_steps": 50},
        {"sampler": "heun", "S_churn": 0.0, "S_min": 0.0, "S_max": float("inf"), "S_noise": 1.0},
    ),
    # Price et al. 2023 (arXiv:2312.15796), supplement, Table 2. S_max is not in the table; it is infinite in
    # the code that they published (graphcast, `dpm_solver_plus_plus_2s.py`).
    "gencast": SamplingSettings(
        {"schedule_type": "karras", "sigma_max": 80.0, "sigma_min": 0.03, "rho": 7.0, "num_steps": 20},
        {"sampler": "dpmpp_2s", "S_churn": 2.5, "S_min": 0.75, "S_max": float("inf"), "S_noise": 1.05},
    ),
}
"""Settings that others have published, by name."""
