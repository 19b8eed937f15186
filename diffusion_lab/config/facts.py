"""What has to agree between the keys of a config, and what a diffusion model cannot have."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from operator import itemgetter

from diffusion_lab.config.names import find
from diffusion_lab.config.schema import Config

# By name, as everything that a config names: reading a config imports no network, no sampler, no task.
TEND_MODEL = "diffusion_lab.models.DiffusionTendModelEncProcDec"
TASK = "diffusion_lab.training.forecaster.GraphForecaster"
TEND_TASK = "diffusion_lab.training.forecaster.GraphTendForecaster"
SETTINGS = "diffusion_lab.sampling.SamplingSettings"
_DIFFUSION = "model.model.diffusion"


def disagreements(config: Config) -> list[str]:
    """Each fault as "path = value: reason and remedy"."""
    checks = (_sizes, _sampling, _task, _ruled_out)
    return [f"{path} = {value!r}: {reason}" for check in checks for path, value, reason in check(config)]


Faults = Iterator[tuple[str, object, str]]


def _sizes(config: Config) -> Faults:
    model, diffusion = config.model, config.model.model.diffusion
    if model.num_channels % model.num_heads:
        divisors = [str(n) for n in range(1, model.num_channels + 1) if model.num_channels % n == 0]
        yield (
            "model.num_heads",
            model.num_heads,
            f"does not divide model.num_channels = {model.num_channels}; take one of {', '.join(divisors)}",
        )
    norm, embedder = "model.layer_kernels.LayerNorm", f"{_DIFFUSION}.noise_embedder"
    for node, where, key, path, width in [
        (model.layer_kernels.LayerNorm, norm, "normalized_shape", "model.num_channels", model.num_channels),
        (
            *(model.layer_kernels.LayerNorm, norm, "condition_shape"),
            *(f"{_DIFFUSION}.noise_cond_dim", diffusion.noise_cond_dim),
        ),
        (
            *(diffusion.noise_embedder, embedder, "num_channels"),
            *(f"{_DIFFUSION}.noise_channels", diffusion.noise_channels),
        ),
    ]:
        if node.get(key, width) != width:
            yield f"{where}.{key}", node[key], f"must be {path} = {width}; write {key}: ${{{path}}}"
    if diffusion.noise_channels % 2:
        even = diffusion.noise_channels + 1
        reason = f"must be even, as sines and cosines come in pairs; take {even}"
        yield f"{_DIFFUSION}.noise_channels", diffusion.noise_channels, reason


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
        # The message names what is wrong first, then what is allowed.
        said = [
            (match.start(), f"{_DIFFUSION}.inference_defaults.{part}.{key}", value)
            for part, options in defaults
            for key, value in options.items()
            if (match := re.search(rf"\b{re.escape(str(key))}\b", str(error)))
        ]
        _, path, value = min(said, key=itemgetter(0), default=(0, f"{_DIFFUSION}.inference_defaults", "…"))
        superfluous = "has no option" in str(error) and "did you mean" not in str(error)
        yield path, value, f"{error}. Take it out: ~{path}" if superfluous else str(error)


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
    for key in ("start", "max"):
        if (value := getattr(config.training.rollout, key)) != 1:
            reason = f"a diffusion model is trained one step at a time; write training.rollout.{key}: 1"
            yield f"training.rollout.{key}", value, reason
    if config.model.bounding:
        reason = (
            "the network denoises normalised targets, which have no bounds: clipping would distort every "
            "step of the sampler; write model.bounding: [] and bound the forecast afterwards"
        )
        yield "model.bounding", config.model.bounding, reason
