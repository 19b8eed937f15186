"""Hydra configs: composed, checked before anything is built, and turned into objects.

A config names classes and their arguments and nothing else; no class ever sees it. What stands here is the
one place that knows both.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from diffusion_lab.data.dates import lead_name, period


class ConfigError(ValueError):
    """A config that cannot be run; the message names path, value and remedy, and fits one screen."""


class Group(BaseModel):
    """A config group: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _check_target(node: Any) -> Any:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ValueError("needs a _target_: the import path of a class or function")
    try:
        target = get_object(node["_target_"])
    except Exception as error:
        raise ValueError(f"_target_ {node['_target_']!r} cannot be imported: {error}") from None
    parameters = inspect.signature(target).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in node:
            if key != "_target_" and key not in parameters:
                raise ValueError(f"{target.__name__} takes no {key!r}{nearest(key, parameters)}")
    return dict(node)


Target = Annotated[dict[str, Any], BeforeValidator(_check_target)]


def _check_date(value: Any) -> str:
    try:
        np.datetime64(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no date; write it as 2024, 2024-06 or 2024-06-15T12") from None
    return str(value)


Date = Annotated[str, BeforeValidator(_check_date)]
Lead = Annotated[str, BeforeValidator(lead_name)]


class Window(Group):
    """First and last date, each at its own precision."""

    start: Date
    end: Date

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        period(self.start, self.end)
        return self


class Data(Group):
    """Group `data`."""

    timestep: Lead
    forcing: list[str]
    diagnostic: list[str]
    drop: list[str]
    computed_forcing: list[str]


class DataLoader(Group):
    """Group `dataloader`."""

    dataset: str
    training: Window
    validation: Window
    test: Window
    batch_size: PositiveInt
    num_workers: Annotated[int, Field(ge=0)]


class Validation(Group):
    """How validation samples while training."""

    every_n_steps: PositiveInt
    starts: PositiveInt
    members: Annotated[int, Field(ge=2)]
    num_steps: PositiveInt


class Evaluation(Group):
    """The forecasts that end a training."""

    enabled: bool
    starts: PositiveInt
    steps: PositiveInt
    members: Annotated[int, Field(ge=2)]
    num_steps: PositiveInt


class Diagnostics(Group):
    """Group `diagnostics`."""

    log_every_n_steps: PositiveInt
    progress_bar: bool
    tensorboard: bool
    checkpoint_every_n_steps: PositiveInt
    validation: Validation
    evaluation: Evaluation


class Input(Group):
    """Where data comes from."""

    dataset: str


class System(Group):
    """Group `system`."""

    input: Input
    output: str
    accelerator: str
    threads: PositiveInt | None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]


class InferenceDefaults(Group):
    """Sampling settings that a checkpoint is released with; checked by `SamplingSettings`."""

    noise_scheduler: dict[str, Any]
    diffusion_sampler: dict[str, Any]


class Diffusion(Group):
    """Noise levels and their embedding."""

    sigma_data: PositiveFloat
    noise_channels: PositiveInt
    noise_cond_dim: PositiveInt
    max_period: PositiveFloat
    sigma_max: PositiveFloat
    sigma_min: PositiveFloat
    rho: PositiveFloat
    inference_defaults: InferenceDefaults


class Network(Group):
    """Which class, and its diffusion arguments."""

    target: Literal[
        "diffusion_lab.models.DiffusionModelEncProcDec", "diffusion_lab.models.DiffusionTendModelEncProcDec"
    ] = Field(alias="_target_")
    diffusion: Diffusion


class Model(Group):
    """Group `model`."""

    num_channels: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    mlp_ratio: PositiveInt
    processor: Literal["graphtransformer", "transformer"]
    trainable_size: Annotated[int, Field(ge=0)]
    latent_skip: bool
    gradient_checkpointing: bool
    model: Network


class Rollout(Group):
    """Training rollout; a diffusion model denoises one step at a time."""

    start: Literal[1]
    max: Literal[1]


class Training(Group):
    """Group `training`."""

    model_task: str | None
    multistep_input: PositiveInt
    rollout: Rollout
    objective: Target
    training_loss: Target
    variable_weights: dict[str, Annotated[float, Field(ge=0)]]
    max_steps: PositiveInt
    lr: PositiveFloat
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: PositiveFloat | None
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]


class Config(Group):
    """Everything `diffusion-lab train` needs."""

    name: str
    config_validation: bool
    data: Data
    dataloader: DataLoader
    diagnostics: Diagnostics
    system: System
    graph: Target
    model: Model
    training: Training


def config_folder() -> Path:
    """The folder of the shipped configs: inside the wheel, or beside the package in a checkout."""
    inside = Path(str(files("diffusion_lab"))) / "configs"
    return inside if inside.is_dir() else inside.parents[1] / "configs"


def compose(
    overrides: Sequence[str] = (), config_name: str = "config", config_dir: str | Path | None = None
) -> DictConfig:
    """Compose a config from its groups.

    Args:
        overrides: Hydra overrides such as "model=transformer_diffusion" or "training.lr=3e-4".
        config_name: a file in `config_dir` or among the shipped ones, without ".yaml".
        config_dir: your own configs, searched before the shipped ones.

    Raises:
        ConfigError: with Hydra's reason.
    """
    own = [f"hydra.searchpath=[file://{config_folder()}]"] if config_dir else []
    folder = Path(config_dir).resolve() if config_dir else config_folder()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            try:
                return hydra_compose(config_name, overrides=[*own, *overrides])
            except ConfigCompositionException as error:
                if unknown := re.match(r"Could not override '([\w.]+)'", str(error)):
                    raise _unknown_key(unknown[1], hydra_compose(config_name, overrides=own)) from None
                raise
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error)) from None


def validate(config: DictConfig) -> Config:
    """Resolve a composed config and check types, ranges and names.

    Raises:
        ConfigError: listing each fault as path, value and remedy.
    """
    try:
        return Config.model_validate(OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from None
    except ValidationError as error:
        faults = [_explain(fault) for fault in error.errors()]
        raise ConfigError("The config cannot be used:\n" + "\n".join(faults)) from None


def instantiate(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Call what `_target_` names with the node's other keys and `arguments`.

    Raises:
        ConfigError: naming the target and the keys, where it does not take their values.
    """
    options = {key: value for key, value in node.items() if key != "_target_"}
    try:
        return get_object(node["_target_"])(**options, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{node['_target_']} with {options}: {error}") from None


def _unknown_key(path: str, config: DictConfig) -> ConfigError:
    parent, _, key = path.rpartition(".")
    group = OmegaConf.select(config, parent) if parent else config
    hint = nearest(key, list(group)) if isinstance(group, DictConfig) and group else ""
    return ConfigError(f"{path}: there is no such key{hint} (To add a key, write +{path}=…)")


def _explain(fault: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return (
            f"  {path}: there is no such key{nearest(str(fault['loc'][-1]), _fields_at(fault['loc'][:-1]))}"
        )
    if fault["type"] == "missing":
        return f"  {path}: is required"
    message = fault["msg"]
    reason = message.removeprefix("Value error, ") if "Value error" in message else message.lower()
    value = "" if fault["type"] == "value_error" else f" (got {fault['input']!r})"
    return f"  {path}: {reason}{value}"


def _fields_at(path: Sequence[Any]) -> list[str]:
    group: Any = Config
    for part in path:
        group = group.model_fields[part].annotation
    return [field.alias or name for name, field in group.model_fields.items()]


def nearest(key: str, allowed: Mapping[str, Any] | Sequence[str]) -> str:
    """The end of a message on an unknown key: the key it is most like, or all that are allowed."""
    near = difflib.get_close_matches(key, list(allowed), 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; allowed: {', '.join(allowed)}"
