"""Which keys of a config must agree, and what a diffusion model cannot have."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from operator import itemgetter

from omegaconf import OmegaConf

from diffusion_lab.config.names import find
from diffusion_lab.config.schema import Config

# By name, like everything that a config names: reading a config imports no network, sampler or task.
TEND_MODEL = "diffusion_lab.models.DiffusionTendModelEncProcDec"
TASK = "diffusion_lab.training.forecaster.GraphForecaster"
TEND_TASK = "diffusion_lab.training.forecaster.GraphTendForecaster"
SETTINGS = "diffusion_lab.sampling.SamplingSettings"
_DIFFUSION, _NORM = "model.model.diffusion", "model.layer_kernels.LayerNorm"
_EQUAL = {
    f"{_NORM}.normalized_shape": "model.num_channels",
    f"{_NORM}.condition_shape": f"{_DIFFUSION}.noise_cond_dim",
    f"{_DIFFUSION}.noise_embedder.num_channels": f"{_DIFFUSION}.noise_channels",
}

Faults = Iterator[tuple[str, object, str]]


def disagreements(config: Config) -> list[str]:
    """Each fault as "path = value: reason and remedy"."""
    checks = (_sizes, _sampling, _task, _ruled_out)
    return [f"{path} = {value!r}: {reason}" for check in checks for path, value, reason in check(config)]


def _sizes(config: Config) -> Faults:
    channels, heads = config.model.num_channels, config.model.num_heads
    if channels % heads:
        divisors = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)
        reason = f"does not divide model.num_channels = {channels}; take one of {divisors}"
        yield "model.num_heads", heads, reason
    values = OmegaConf.create({"model": config.model.model_dump(by_alias=True)})
    for path, other in _EQUAL.items():
        width = OmegaConf.select(values, other)
        if (value := OmegaConf.select(values, path, default=width)) != width:
            key = path.rpartition(".")[2]
            yield path, value, f"must be {other} = {width}; write {key}: ${{{other}}}"
    if (width := config.model.model.diffusion.noise_channels) % 2:
        reason = f"must be even, as sines and cosines come in pairs; take {width + 1}"
        yield f"{_DIFFUSION}.noise_channels", width, reason


def _sampling(config: Config) -> Faults:
    diffusion = config.model.model.diffusion
    defaults = diffusion.inference_defaults
    if diffusion.sigma_min >= diffusion.sigma_max:
        reason = f"must be below {_DIFFUSION}.sigma_max = {diffusion.sigma_max}; the guide has 0.02 and 100"
        yield f"{_DIFFUSION}.sigma_min", diffusion.sigma_min, reason
        return
    try:
        find(SETTINGS)(defaults.noise_scheduler, defaults.diffusion_sampler)
    except ValueError as error:
        reason = str(error)
        # The message names what is wrong first, then what is allowed.
        named = [
            (match.start(), f"{_DIFFUSION}.inference_defaults.{part}.{key}", value)
            for part, options in defaults
            for key, value in options.items()
            if (match := re.search(rf"\b{re.escape(str(key))}\b", reason))
        ]
        _, path, value = min(named, key=itemgetter(0), default=(0, f"{_DIFFUSION}.inference_defaults", "…"))
        if "has no option" in reason and "did you mean" not in reason:
            reason += f". Take it out: ~{path}"
        yield path, value, reason


def _task(config: Config) -> Faults:
    path, name = "training.model_task", config.training.model_task
    if name is None:
        return
    try:
        task = find(name)
    except ValueError as error:
        yield path, name, str(error)
        return
    if not (inspect.isclass(task) and issubclass(task, find(TASK))):
        yield path, name, f"is not a training task; use {TASK} or a subclass of it"
        return
    network = find(config.model.model.target)
    tend_model = inspect.isclass(network) and issubclass(network, find(TEND_MODEL))
    if issubclass(task, find(TEND_TASK)) != tend_model:
        what, fit = ("changes", TEND_TASK) if tend_model else ("states", TASK)
        other = "graphtransformer_diffusion" + ("" if tend_model else "tend")
        yield path, name, f"the model predicts {what}, which needs {fit}; or choose model={other}"


def _ruled_out(config: Config) -> Faults:
    for key, value in config.training.rollout:
        if value != 1:
            reason = f"a diffusion model is trained one step at a time; write training.rollout.{key}: 1"
            yield f"training.rollout.{key}", value, reason
    if config.model.bounding:
        reason = "normalised targets have no bounds; write model.bounding: [] and bound the forecast instead"
        yield "model.bounding", config.model.bounding, reason
