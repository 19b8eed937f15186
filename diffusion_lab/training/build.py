"""A training run, built from a config but not started: store, data, graph, network, task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from diffusion_lab.assets import checkpoints, store_path, stores
from diffusion_lab.config import (
    NOISE_ARGUMENTS,
    Config,
    ConfigError,
    Window,
    find,
    instantiate,
    nearest,
    parameters,
)
from diffusion_lab.inference.release import load_release
from diffusion_lab.models import (
    Architecture,
    ConditionalLayerNorm,
    DiffusionTendModelEncProcDec,
    SinusoidalEmbeddings,
)
from diffusion_lab.models.architecture import Sizes
from diffusion_lab.noise import SphericalNoise
from diffusion_lab.objectives import DiffusionObjective
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.dates import Period, lead_name
from diffusion_lab.stores.forcings import COMPUTED_FORCINGS
from diffusion_lab.stores.module import ForecastDataModule, forecast_starts
from diffusion_lab.stores.states import Normalizer
from diffusion_lab.stores.store import Store, open_store
from diffusion_lab.stores.variables import Variables
from diffusion_lab.training.forecaster import GraphForecaster, GraphTendForecaster

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


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
    store = _open_store(config.dataloader.dataset)
    variables = select_variables(store, config)
    check_dates(store, config)
    check_tendencies(store, config)
    loader, training = config.dataloader, config.training
    data = ForecastDataModule(
        store,
        variables,
        loader.training.period,
        loader.validation.period,
        step=config.data.timestep,
        multistep_input=training.multistep_input,
        batch_size=loader.batch_size,
        num_steps=training.max_steps,
        validation_starts=config.diagnostics.validation.starts,
        num_workers=loader.num_workers,
        seed=training.seed,
    )
    return Run(config, store, variables, data, build_task(config, store, variables))


def _open_store(name: str) -> Store:
    try:
        return open_store(store_path(name))
    except FileNotFoundError as error:
        raise ConfigError(
            f"system.input.dataset = {name!r}: {error} Write the path or URL of a store, or the name of a "
            f"shipped one: {', '.join(stores())}"
        ) from None


def select_variables(store: Store, config: Config) -> Variables:
    """The store's variables with the roles of the config's group `data`."""
    roles = config.data
    for key, known in [
        ("forcing", store.variables),
        ("diagnostic", store.variables),
        ("drop", store.variables),
        ("computed_forcing", COMPUTED_FORCINGS),
    ]:
        for name in getattr(roles, key):
            if name not in known:
                raise ConfigError(f"data.{key}: there is no {name!r}{nearest(name, known)}")
    chosen = Variables.of(
        store.with_roles(forcing=roles.forcing, diagnostic=roles.diagnostic), roles.computed_forcing
    )

    def kept(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in roles.drop)

    return Variables(kept(chosen.prognostic), kept(chosen.forcing), kept(chosen.diagnostic))


def check_dates(store: Store, config: Config) -> None:
    """The step must be one of the store's, and each window must hold a sample.

    Raises:
        ConfigError: naming the key.
    """
    inputs = config.training.multistep_input

    def check(path: str, value: str, window: Period | None) -> None:
        try:
            forecast_starts(store, config.data.timestep, inputs, window)
        except ValueError as error:
            raise ConfigError(f"{path} = {value}: {error}") from None

    check("data.timestep", lead_name(config.data.timestep), None)
    for name in ("training", "validation"):
        window: Window = getattr(config.dataloader, name)
        check(f"dataloader.{name}", f"{window.start} to {window.end}", window.period)


def check_tendencies(store: Store, config: Config) -> None:
    """A model of tendencies needs the statistics of the change over its step.

    Raises:
        ConfigError: the store has none.
    """
    known, _ = parameters(find(config.model.model.target))
    step = lead_name(config.data.timestep)
    if "tendency_mean" in known and step not in store.tendency_leads:
        leads = ", ".join(store.tendency_leads)
        raise ConfigError(
            f"data.timestep = {step!r}: {config.model.model.target.rpartition('.')[2]} needs "
            f"statistics_tendencies for this step, and {store.path!r} has "
            + (f"them for {leads}; write data.timestep: {store.tendency_leads[0]}" if leads else "none; ")
            + (", or " if leads else "")
            + "choose a model of states, model=graphtransformer_diffusion"
        )


def build_task(config: Config, store: Store, variables: Variables) -> GraphForecaster:
    """Graph, network, objective, loss and the Lightning task around them."""
    training, diffusion = config.training, config.model.model.diffusion
    unknown = [name for name in training.variable_weights if name not in variables.output]
    if unknown:
        raise ConfigError(f"training.variable_weights names {unknown}; outputs are {list(variables.output)}")
    objective = build_objective(config, store)
    settings = SamplingSettings(**diffusion.inference_defaults.model_dump())
    torch.manual_seed(training.seed)  # initial weights
    graph = instantiate(config.graph, latitudes=store.latitudes, longitudes=store.longitudes)
    model = build_network(config, store, variables, graph)
    if training.initial_weights is not None:
        take_weights(model, training.initial_weights)
    loss = instantiate(
        training.training_loss.only,
        node_weights=graph["data"].area_weight,
        variable_weights=[training.variable_weights.get(name, 1.0) for name in variables.output],
    )
    usual = GraphTendForecaster if isinstance(model, DiffusionTendModelEncProcDec) else GraphForecaster
    task: Callable[..., GraphForecaster] = find(training.model_task) if training.model_task else usual
    return task(
        model,
        objective,
        loss,
        variables.output,
        Normalizer.of(store, variables.output).stdev,
        learning_rate=training.lr,
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup_steps,
        settings=settings.with_num_steps(config.diagnostics.validation.num_steps),
        validation_members=config.diagnostics.validation.members,
        seed=training.seed,
    )


def build_objective(config: Config, store: Store) -> DiffusionObjective:
    """The objective; noise settings that it leaves out are those of `model.model.diffusion`."""
    node, diffusion = config.training.objective, config.model.model.diffusion
    known, _ = parameters(find(node["_target_"]))
    given = {key: getattr(diffusion, key) for key in NOISE_ARGUMENTS if key in known and key not in node}
    if diffusion.noise_max_wavenumber is not None:
        nodes = torch.from_numpy(store.latitudes), torch.from_numpy(store.longitudes)
        given["field"] = SphericalNoise(*nodes, diffusion.noise_max_wavenumber)
    return instantiate(node, **given)


def build_network(config: Config, store: Store, variables: Variables, graph: HeteroData) -> nn.Module:
    """The network of group `model`, sized for the variables: the guide's keys become plain arguments.

    A user-defined class gets those of the arguments that it accepts, and its own further keys.
    """
    node, chosen = config.model.model, architecture(config)
    arguments = {
        "graph": graph,
        "num_input": len(variables.input),
        "num_output": len(variables.output),
        "num_prognostic": len(variables.prognostic),
        "architecture": chosen,
        **asdict(chosen),
    }
    known, _ = parameters(find(node.target))
    if "tendency_mean" in known:
        scales = tendency_scales(store, variables, config.data.timestep)
        arguments |= dict(zip(("tendency_mean", "tendency_stdev"), scales, strict=True))
    taken = {key: value for key, value in arguments.items() if key in known}
    model = instantiate({"_target_": node.target, **(node.model_extra or {})}, **taken)
    replace_layers(model, node.diffusion.noise_embedder, config.model.layer_kernels.LayerNorm)
    return model


def architecture(config: Config) -> Architecture:
    """The hyper-parameters, gathered from where the guide's config has them."""
    group, diffusion = config.model, config.model.model.diffusion
    return Architecture(
        **{field.name: getattr(group, field.name) for field in fields(Sizes)},
        multistep_input=config.training.multistep_input,
        sigma_data=diffusion.sigma_data,
        noise_channels=diffusion.noise_channels,
        noise_cond_dim=diffusion.noise_cond_dim,
        max_period=diffusion.noise_embedder.get("max_period", 1000.0),
    )


def take_weights(model: nn.Module, checkpoint: str) -> int:
    """Initialise from the weights of a release checkpoint, where names and shapes match.

    This continues a training with other data or noise, and gives a network with another processor a trained
    encoder and decoder.

    Args:
        model: changed in place.
        checkpoint: a released name or a path.

    Returns:
        The number of the model's parameter tensors that were initialised.

    Raises:
        ConfigError: there is no such checkpoint, or nothing in it fits.
    """
    try:
        _, source, *_ = load_release(checkpoints().get(checkpoint, Path(checkpoint)))
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"training.initial_weights: {error}") from None
    given = dict(source.named_parameters())
    fitting = [
        (own, given[name])
        for name, own in model.named_parameters()
        if name in given and given[name].shape == own.shape
    ]
    if not fitting:
        raise ConfigError(f"training.initial_weights = {checkpoint!r}: none of its weights fits this network")
    with torch.no_grad():
        for own, taken in fitting:
            own.copy_(taken)
    return len(fitting)


def replace_layers(model: nn.Module, embedder: Mapping[str, Any], layer_norm: Mapping[str, Any]) -> None:
    """Replace every noise embedding and conditional layer norm by what the config names."""
    kinds = ((SinusoidalEmbeddings, embedder), (ConditionalLayerNorm, layer_norm))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            for kind, node in kinds:
                if isinstance(child, kind):
                    setattr(parent, name, instantiate(node))


def tendency_scales(
    store: Store, variables: Variables, step: np.timedelta64 | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the change over a step, over the state's standard deviation.

    Raises:
        KeyError: the store has no tendency statistics for the step.
    """
    statistics = store.tendency_statistics(step)
    columns = [store.variables.index(name) for name in variables.prognostic]
    scale = store.statistics.stdev[columns]
    mean, stdev = statistics.mean[columns] / scale, statistics.stdev[columns] / scale
    return torch.from_numpy(mean), torch.from_numpy(stdev)
