"""Building a training run from a config: store, data, graph, network, task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from diffusion_lab.assets import checkpoints, store_path, stores
from diffusion_lab.config import Config, ConfigError, find, instantiate, nearest
from diffusion_lab.config.schema import NOISE_ARGUMENTS
from diffusion_lab.config.targets import parameters
from diffusion_lab.inference.release import load_release
from diffusion_lab.models import ConditionalLayerNorm, DiffusionTendModelEncProcDec, SinusoidalEmbeddings
from diffusion_lab.models.architecture import Architecture, Sizes
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
    """A training run, built but not started."""

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
    loader, training = config.dataloader, config.training
    try:
        store = open_store(store_path(loader.dataset))
    except FileNotFoundError as error:
        raise ConfigError(
            f"system.input.dataset = {loader.dataset!r}: {error} Write the path or URL of a store, or the "
            f"name of a shipped one: {', '.join(stores())}"
        ) from None
    variables = select_variables(store, config)
    _check_dates(store, config)
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
    return Run(config, store, variables, data, _build_task(config, store, variables))


def select_variables(store: Store, config: Config) -> Variables:
    """The store's variables with the roles of the config's group `data`.

    Raises:
        ConfigError: the group names a variable or forcing that does not exist.
    """
    roles = config.data
    known = dict.fromkeys(("forcing", "diagnostic", "drop"), store.variables)
    for key, names in {**known, "computed_forcing": COMPUTED_FORCINGS}.items():
        for name in getattr(roles, key):
            if name not in names:
                raise ConfigError(f"data.{key}: there is no {name!r}{nearest(name, names)}")
    chosen = Variables.of(
        store.with_roles(forcing=roles.forcing, diagnostic=roles.diagnostic), roles.computed_forcing
    )
    kept = [
        tuple(name for name in names if name not in roles.drop)
        for names in (chosen.prognostic, chosen.forcing, chosen.diagnostic)
    ]
    return Variables(*kept)


def _check_dates(store: Store, config: Config) -> None:
    """The step must fit the store and each window hold a sample; tendencies need statistics of the step."""
    data, loader = config.data, config.dataloader
    step = lead_name(data.timestep)
    checks: dict[str, Period | None] = {f"data.timestep = {step}": None}
    for name, window in {"training": loader.training, "validation": loader.validation}.items():
        checks[f"dataloader.{name} = {window.start} to {window.end}"] = window.period
    for given, dates in checks.items():
        try:
            forecast_starts(store, data.timestep, config.training.multistep_input, dates)
        except ValueError as error:
            raise ConfigError(f"{given}: {error}") from None
    target, leads = config.model.model.target, store.tendency_leads
    if "tendency_mean" in parameters(find(target))[0] and step not in leads:
        there = f"them for {', '.join(leads)}; write data.timestep: {leads[0]}, or " if leads else "none; "
        raise ConfigError(
            f"data.timestep = {step!r}: {target.rpartition('.')[2]} needs statistics_tendencies for this "
            f"step, and {store.path!r} has {there}choose a model of states, model=graphtransformer_diffusion"
        )


def _build_task(config: Config, store: Store, variables: Variables) -> GraphForecaster:
    """Graph, network, objective, loss and the Lightning task around them."""
    training, diffusion = config.training, config.model.model.diffusion
    unknown = [name for name in training.variable_weights if name not in variables.output]
    if unknown:
        raise ConfigError(f"training.variable_weights names {unknown}; outputs are {list(variables.output)}")
    objective = _build_objective(config, store)
    settings = SamplingSettings(**diffusion.inference_defaults.model_dump())
    torch.manual_seed(training.seed)  # initial weights
    graph = instantiate(config.graph, latitudes=store.latitudes, longitudes=store.longitudes)
    model = _build_network(config, store, variables, graph)
    if training.initial_weights is not None:
        _take_weights(model, training.initial_weights)
    (loss_node,) = training.training_loss.datasets.values()
    loss = instantiate(
        loss_node,
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


def _build_objective(config: Config, store: Store) -> DiffusionObjective:
    """The objective; noise settings that it leaves out are those of `model.model.diffusion`."""
    node, diffusion = config.training.objective, config.model.model.diffusion
    known, _ = parameters(find(node["_target_"]))
    given = {key: getattr(diffusion, key) for key in NOISE_ARGUMENTS if key in known and key not in node}
    if diffusion.noise_max_wavenumber is not None:
        nodes = torch.from_numpy(store.latitudes), torch.from_numpy(store.longitudes)
        given["field"] = SphericalNoise(*nodes, diffusion.noise_max_wavenumber)
    return instantiate(node, **given)


def _build_network(config: Config, store: Store, variables: Variables, graph: HeteroData) -> nn.Module:
    """The network of group `model`. A user-defined class gets the arguments it takes and its own keys."""
    group, node = config.model, config.model.model
    embedder, layer_norm = node.diffusion.noise_embedder, group.layer_kernels.LayerNorm
    architecture = Architecture(
        **{field.name: getattr(group, field.name) for field in fields(Sizes)},
        multistep_input=config.training.multistep_input,
        sigma_data=node.diffusion.sigma_data,
        noise_channels=node.diffusion.noise_channels,
        noise_cond_dim=node.diffusion.noise_cond_dim,
        max_period=embedder.get("max_period", 1000.0),
    )
    arguments = {
        "graph": graph,
        "num_input": len(variables.input),
        "num_output": len(variables.output),
        "num_prognostic": len(variables.prognostic),
        "architecture": architecture,
        **asdict(architecture),
    }
    known, _ = parameters(find(node.target))
    if "tendency_mean" in known:
        scales = tendency_scales(store, variables, config.data.timestep)
        arguments |= dict(zip(("tendency_mean", "tendency_stdev"), scales, strict=True))
    taken = {key: value for key, value in arguments.items() if key in known}
    model = instantiate({"_target_": node.target, **(node.model_extra or {})}, **taken)
    kinds = ((SinusoidalEmbeddings, embedder), (ConditionalLayerNorm, layer_norm))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            for kind, kernel in kinds:
                if isinstance(child, kind):
                    setattr(parent, name, instantiate(kernel))
    return model


def _take_weights(model: nn.Module, checkpoint: str) -> None:
    """Initialise from a release checkpoint, by name or path, where names and shapes match.

    So training can continue with other data or noise, and a network with another processor can start from a
    trained encoder and decoder.
    """
    try:
        _, source, *_ = load_release(checkpoints().get(checkpoint, Path(checkpoint)))
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"training.initial_weights: {error}") from None
    own, given = dict(model.named_parameters()), dict(source.named_parameters())
    fitting = [name for name in own.keys() & given.keys() if own[name].shape == given[name].shape]
    if not fitting:
        raise ConfigError(f"training.initial_weights = {checkpoint!r}: none of its weights fits this network")
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(given[name])


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
