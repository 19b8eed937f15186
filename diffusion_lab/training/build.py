"""A training run, built from a config but not started: store, data, graph, network, task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusion_lab.assets import store_path
from diffusion_lab.config import Config, ConfigError, instantiate
from diffusion_lab.data.module import ForecastDataModule
from diffusion_lab.data.states import Normalizer
from diffusion_lab.data.store import Store, open_store
from diffusion_lab.data.variables import Variables
from diffusion_lab.inference.settings import SamplingSettings
from diffusion_lab.models import DiffusionModelEncProcDec, DiffusionTendModelEncProcDec
from diffusion_lab.training.forecaster import GraphForecaster, GraphTendForecaster

TEND_MODEL = "diffusion_lab.models.DiffusionTendModelEncProcDec"

TEND_MODEL = "diffusion_lab.models.DiffusionTendModelEncProcDec"


@dataclass(frozen=True)
class Run:
    """Everything of a training run, built but not started."""

    config: Config
    store: Store
    variables: Variables
    data: ForecastDataModule
    task: GraphForecaster

    @property
    def folder(self) -> Path:
        """Where checkpoints, logs and pictures go."""
        return Path(self.config.system.output)


def build(config: Config) -> Run:
    """Build store, data, graph, model and task.

    Raises:
        ConfigError: the parts do not fit together.
    """
    store = open_store(store_path(config.dataloader.dataset))
    variables = select_variables(store, config)
    loader, training = config.dataloader, config.training
    data = ForecastDataModule(
        store,
        variables,
        (loader.training.start, loader.training.end),
        (loader.validation.start, loader.validation.end),
        step=config.data.timestep,
        multistep_input=training.multistep_input,
        batch_size=loader.batch_size,
        num_steps=training.max_steps,
        validation_starts=config.diagnostics.validation.starts,
        num_workers=loader.num_workers,
        seed=training.seed,
    )
    return Run(config, store, variables, data, build_task(config, store, variables))


def select_variables(store: Store, config: Config) -> Variables:
    """The store's variables with the roles of the config's group `data`."""
    roles = config.data
    unknown = [name for name in roles.forcing + roles.diagnostic + roles.drop if name not in store.variables]
    if unknown:
        raise ConfigError(f"data names {unknown}, but {store.path!r} has {list(store.variables)}")
    chosen = Variables.of(
        store.with_roles(forcing=roles.forcing, diagnostic=roles.diagnostic), roles.computed_forcing
    )

    def kept(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in roles.drop)

    return Variables(kept(chosen.prognostic), kept(chosen.forcing), kept(chosen.diagnostic))


def build_task(config: Config, store: Store, variables: Variables) -> GraphForecaster:
    """Graph, network, objective, loss and the Lightning task around them."""
    training, diffusion = config.training, config.model.model.diffusion
    torch.manual_seed(training.seed)  # initial weights
    graph = instantiate(config.graph, latitudes=store.latitudes, longitudes=store.longitudes)
    model = build_model(config, store, variables, graph)
    unknown = [name for name in training.variable_weights if name not in variables.output]
    if unknown:
        raise ConfigError(f"training.variable_weights names {unknown}; outputs are {list(variables.output)}")
    loss = instantiate(
        training.training_loss,
        node_weights=graph["data"].area_weight,
        variable_weights=[training.variable_weights.get(name, 1.0) for name in variables.output],
    )
    defaults = diffusion.inference_defaults
    settings = SamplingSettings(defaults.noise_scheduler, defaults.diffusion_sampler)
    validation = config.diagnostics.validation
    task = GraphTendForecaster if isinstance(model, DiffusionTendModelEncProcDec) else GraphForecaster
    if training.model_task not in (None, task.__name__):
        raise ConfigError(
            f"training.model_task={training.model_task} does not train a {type(model).__name__}; that is for "
            f"{task.__name__}, as training.model_task=null says"
        )
    return task(
        model,
        instantiate(training.objective),
        loss,
        variables.output,
        Normalizer.of(store, variables.output).stdev,
        learning_rate=training.lr,
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup_steps,
        settings=settings.override({"num_steps": validation.num_steps}),
        validation_members=validation.members,
        seed=training.seed,
    )


def build_model(config: Config, store: Store, variables: Variables, graph: Any) -> DiffusionModelEncProcDec:
    """The network of group `model`, sized for the variables."""
    model, diffusion = config.model, config.model.model.diffusion
    options = {
        "multistep_input": config.training.multistep_input,
        "num_channels": model.num_channels,
        "num_layers": model.num_layers,
        "num_heads": model.num_heads,
        "mlp_ratio": model.mlp_ratio,
        "processor": model.processor,
        "trainable_size": model.trainable_size,
        "latent_skip": model.latent_skip,
        "gradient_checkpointing": model.gradient_checkpointing,
        "sigma_data": diffusion.sigma_data,
        "noise_channels": diffusion.noise_channels,
        "noise_cond_dim": diffusion.noise_cond_dim,
        "max_period": diffusion.max_period,
    }
    sizes = (len(variables.input), len(variables.output), len(variables.prognostic))
    if model.model.target != TEND_MODEL:
        return DiffusionModelEncProcDec(graph, *sizes, **options)
    mean, stdev = tendency_scales(store, variables, config.data.timestep)
    return DiffusionTendModelEncProcDec(graph, *sizes, tendency_mean=mean, tendency_stdev=stdev, **options)


def tendency_scales(store: Store, variables: Variables, step: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the change over a step, over the state's standard deviation.

    Raises:
        KeyError: the store has no tendency statistics for the step.
    """
    statistics = store.tendency_statistics(step)
    columns = [store.variables.index(name) for name in variables.prognostic]
    scale = store.statistics.stdev[columns]
    mean, stdev = statistics.mean[columns] / scale, statistics.stdev[columns] / scale
    return torch.from_numpy(mean), torch.from_numpy(stdev)
