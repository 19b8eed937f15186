"""What a config may say: every group and key, with types and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from diffusion_lab.config.names import our_name
from diffusion_lab.config.targets import check_target, fault, given_target
from diffusion_lab.config.values import Date, Group, Lead, Name, Seed
from diffusion_lab.models.architecture import Architecture, Sizes, check_count
from diffusion_lab.stores.dates import Period, period

# Arguments of a network that `training.build` takes from elsewhere in the config, or from the data.
_NETWORK_ARGUMENTS = (
    *("graph", "num_input", "num_output", "num_prognostic", "tendency_mean", "tendency_stdev"),
    *("architecture", *(field.name for field in fields(Architecture))),
)
# Arguments that an objective takes from `model.model.diffusion` unless its own node has them.
NOISE_ARGUMENTS = ("sigma_max", "sigma_min", "rho", "sigma_data")
_PROCESSORS = {
    "diffusion_lab.models.processors.GraphTransformerProcessor": "graphtransformer",
    "diffusion_lab.models.processors.TransformerProcessor": "transformer",
}

Target = Annotated[dict[str, Any], given_target()]
"""A class or function by its import path, `_target_`, and its arguments."""


class Window(Group):
    """First and last date, each at its own precision."""

    start: Date
    end: Date

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        try:
            period(self.start, self.end)
        except ValueError as error:
            raise ValueError(f"{error} Give the earlier date as start") from None
        return self

    @property
    def period(self) -> Period:
        """From the first second of `start` to the last of `end`."""
        return period(self.start, self.end)


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
    num_workers: NonNegativeInt


class Validation(Group):
    """How validation samples during training."""

    every_n_steps: PositiveInt
    starts: PositiveInt
    members: Annotated[int, Field(ge=2)]
    num_steps: PositiveInt


class Evaluation(Group):
    """The forecasts made and scored after training."""

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
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: PositiveInt
    num_nodes: PositiveInt
    threads: PositiveInt | None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    accelerate: bool = True


class InferenceDefaults(Group):
    """The `SamplingSettings` that a checkpoint is released with."""

    noise_scheduler: dict[str, Any]
    diffusion_sampler: dict[str, Any]


class Diffusion(Group):
    """Noise levels and their embedding."""

    sigma_data: PositiveFloat
    noise_channels: PositiveInt
    noise_cond_dim: PositiveInt
    sigma_max: PositiveFloat
    sigma_min: PositiveFloat
    rho: PositiveFloat
    noise_max_wavenumber: NonNegativeInt | None = None
    noise_embedder: Target
    inference_defaults: InferenceDefaults


class Network(Group):
    """A class, its diffusion settings, and any further arguments of a user-defined class."""

    model_config = ConfigDict(extra="allow")
    target: str = Field(alias="_target_")
    diffusion: Diffusion

    @model_validator(mode="before")
    @classmethod
    def _signature(cls, node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        own = {key: value for key, value in node.items() if key != "diffusion"}
        return {**node, **check_target(own, _NETWORK_ARGUMENTS, all_taken=False)}


class LayerKernels(Group):
    """Layers used in every block."""

    LayerNorm: Target


def _processor(name: Any) -> Any:
    return _PROCESSORS.get(our_name(name), name) if isinstance(name, str) else name


class Model(Group, Sizes):  # type: ignore[misc]  # frozen by pydantic, which mypy cannot know
    """Group `model`."""

    processor: Annotated[Literal["graphtransformer", "transformer"], BeforeValidator(_processor)]
    bounding: list[Any]
    model: Network
    layer_kernels: LayerKernels

    @field_validator(*(field.name for field in fields(Sizes)))
    @classmethod
    def _possible(cls, value: Any, info: ValidationInfo) -> Any:
        check_count(str(info.field_name), value)
        return value


class Rollout(Group):
    """Autoregressive steps in training, first and last; `facts` allows only one."""

    start: PositiveInt
    max: PositiveInt


def _one_dataset(losses: dict[str, Any]) -> dict[str, Any]:
    if len(losses) != 1:
        drop = f"~training.training_loss.datasets.{next(iter(losses), 'NAME')}"
        raise fault("", list(losses), f"must be one dataset, under any name; drop others as in {drop}")
    return losses


class TrainingLoss(Group):
    """The loss of the one dataset."""

    datasets: Annotated[
        dict[str, Annotated[dict[str, Any], given_target("node_weights", "variable_weights")]],
        AfterValidator(_one_dataset),
    ]


class Training(Group):
    """Group `training`."""

    model_task: str | None
    multistep_input: PositiveInt
    rollout: Rollout
    objective: Annotated[dict[str, Any], given_target(offered=NOISE_ARGUMENTS)]
    training_loss: TrainingLoss
    variable_weights: dict[str, NonNegativeFloat]
    initial_weights: str | None = None
    max_steps: PositiveInt
    lr: PositiveFloat
    warmup_steps: NonNegativeInt
    weight_decay: NonNegativeFloat
    gradient_clip: PositiveFloat | None
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    seed: Seed


class Config(Group):
    """Everything `diffusion-lab train` needs."""

    name: Name
    config_validation: bool
    data: Data
    dataloader: DataLoader
    diagnostics: Diagnostics
    system: System
    graph: Annotated[dict[str, Any], given_target("latitudes", "longitudes")]
    model: Model
    training: Training
