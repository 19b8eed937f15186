"""A training run: objects from a config, a folder that can be resumed, a released checkpoint at the end."""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from matplotlib.figure import Figure
from rich.console import Console

from diffusion_lab import verification
from diffusion_lab.assets import store_path
from diffusion_lab.config import Config, ConfigError, instantiate
from diffusion_lab.data.dates import lead_timedelta
from diffusion_lab.data.module import ForecastDataModule, forecast_starts
from diffusion_lab.data.states import Normalizer
from diffusion_lab.data.store import Store, open_store
from diffusion_lab.data.variables import Variables
from diffusion_lab.inference.forecaster import load_forecaster
from diffusion_lab.inference.release import Release, VariableInfo, fingerprint, save_release
from diffusion_lab.inference.settings import SamplingSettings
from diffusion_lab.models import DiffusionModelEncProcDec, DiffusionTendModelEncProcDec
from diffusion_lab.plots import training_curves
from diffusion_lab.training.callbacks import SIGMA_EDGES, NoiseLevelLoss, ProgressBar, Throughput
from diffusion_lab.training.forecaster import GraphForecaster, GraphTendForecaster

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


def fit(run: Run) -> float:
    """Train, or go on where the run's folder left off; the task ends with its averaged weights.

    Returns:
        Seconds this took, without those before an interruption.

    Raises:
        KeyboardInterrupt: stopped by the user; the last checkpoint is on disk.
    """
    config, folder = run.config, run.folder
    _remember(config, folder)
    if config.system.threads:
        torch.set_num_threads(config.system.threads)
    last = folder / "last.ckpt"
    if last.exists() and load_averaged(run) == config.training.max_steps:
        return 0.0
    with quiet_lightning():
        trainer = build_trainer(config, folder)
    began, on_ctrl_c = time.monotonic(), signal.getsignal(signal.SIGINT)
    try:
        with quiet_lightning():
            trainer.fit(run.task, run.data, ckpt_path=last if last.exists() else None, weights_only=True)
    except SystemExit:
        # Lightning answers Ctrl-C by leaving Python, deaf to a second one; a notebook wants to go on.
        signal.signal(signal.SIGINT, on_ctrl_c)
        raise KeyboardInterrupt from None
    return time.monotonic() - began


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says that is advertising, expected, or not so."""
    expected = (
        "your dataloader is not resumable",  # it is, see `StepSampler`
        "does not have many workers",
        "exists and is not empty",
        "isinstance.treespec, LeafSpec",
    )
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in expected:
                warnings.filterwarnings("ignore", message=f".*{message}")
            yield
    finally:
        logger.setLevel(level)


def train(config: Config, command: str) -> None:
    """Train or resume, release the checkpoint, then forecast from the test window and score.

    Args:
        config: what to train.
        command: what the user typed, for the model card.
    """
    console = Console()
    run = build(config)
    parameters = sum(p.numel() for p in run.task.model.parameters())
    console.print(
        f"[bold]{config.name}[/]: {type(run.task.model).__name__}, {parameters:,} parameters, "
        f"{len(run.data.train_set):,} samples of {run.store.path}, {config.training.max_steps} steps"
    )
    if (run.folder / "last.ckpt").exists():
        console.print(f"going on from {run.folder / 'last.ckpt'}")
    if config.diagnostics.evaluation.enabled:
        evaluation_starts(run)  # a test window without data is an error now, not after the training
    seconds = fit(run)
    path = export_release(
        run, run.folder / f"{config.name}.safetensors", training_facts(run, command, seconds)
    )
    console.print(f"released checkpoint: {path}")
    if config.diagnostics.evaluation.enabled:
        evaluate(run, path, console)


def evaluate(run: Run, checkpoint: Path, console: Console) -> None:
    """Forecast from starts spread over the test window, print the score table, draw the pictures."""
    evaluation, test = run.config.diagnostics.evaluation, run.config.dataloader.test
    forecast = verification.forecast_starts(
        load_forecaster(checkpoint),
        evaluation_starts(run),
        evaluation.steps,
        evaluation.members,
        data=run.store,
        noise_scheduler_params={"num_steps": evaluation.num_steps},
        progress=run.config.diagnostics.progress_bar,
    )
    scores = verification.score(forecast, run.store)
    console.print(verification.score_table(scores, f"{checkpoint.stem}: {test.start} to {test.end}"))
    files = verification.save_report(run.folder / "pictures", forecast, scores, run.store)
    curve = draw_training(run.folder)
    console.print(f"{len(files)} pictures and scores: {(run.folder / 'pictures').resolve()}; loss: {curve}")


def evaluation_starts(run: Run) -> np.ndarray:
    """Start dates spread over the test window, which holds the valid times of all their steps.

    Raises:
        ValueError: the store has no such dates.
    """
    evaluation, test = run.config.diagnostics.evaluation, run.config.dataloader.test
    step = lead_timedelta(run.config.data.timestep)
    dates = forecast_starts(run.store, step, run.config.training.multistep_input, (test.start, test.end))
    dates = dates[dates + evaluation.steps * step <= dates[-1] + step]
    if len(dates) == 0:
        raise ConfigError(
            f"dataloader.test from {test.start} to {test.end} is shorter than a forecast of "
            f"diagnostics.evaluation.steps={evaluation.steps}"
        )
    return verification.spread_out(dates, evaluation.starts)


def draw_training(folder: Path) -> Path:
    """Draw the loss, in all and per noise-level bin, from the CSV log."""
    log = read_log(folder)
    edges = [f"{edge:g}" for edge in SIGMA_EDGES]
    bins = {
        f"{low} – {high}": log[f"train/loss_sigma_bin_{i}"].to_numpy()
        for i, (low, high) in enumerate(pairwise(edges))
        if f"train/loss_sigma_bin_{i}" in log
    }
    figure = Figure(figsize=(8, 4), layout="constrained")
    training_curves(figure.subplots(), log["step"].to_numpy(), log["train/loss"].to_numpy(), bins)
    figure.savefig(folder / "loss.png", dpi=110)
    return folder / "loss.png"


def read_log(folder: Path) -> pd.DataFrame:
    """All that a run logged: a resumed session takes over from the step it began at."""
    files = sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda file: int(file.parent.name[8:]))
    sessions = [pd.read_csv(file) for file in files]
    starts = [session["step"].min() for session in sessions[1:]] + [float("inf")]
    kept = [session[session["step"] < start] for session, start in zip(sessions, starts, strict=True)]
    return pd.concat(kept).sort_values("step", kind="stable")


def training_facts(run: Run, command: str, seconds: float) -> dict[str, Any]:
    """What a model card says of the training."""
    loader, training = run.config.dataloader, run.config.training
    return {
        "command": command,
        "data": run.store.path,
        "window": [loader.training.start, loader.training.end],
        "samples": len(run.data.train_set),
        "steps": training.max_steps,
        "batch_size": loader.batch_size,
        "seed": training.seed,
        "seconds": round(seconds),
        "torch": torch.__version__,
        "device": str(run.task.device),
        "threads": torch.get_num_threads(),
    }


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint by a whole one: Lightning's own way copies where /tmp is another file system."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write beside the path, then rename."""
        partial = f"{path}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        os.replace(partial, path)


def build_trainer(config: Config, folder: Path) -> Trainer:
    """Lightning's trainer, counting in steps: there is one epoch, as long as the training."""
    diagnostics = config.diagnostics
    # Each session, first or resumed, logs to a folder of its own: version_0, version_1, …
    loggers: list[Any] = [CSVLogger(folder, name="csv")]
    if diagnostics.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard"))
    callbacks = [
        EMAWeightAveraging(decay=config.training.ema_decay, use_buffers=False),
        NoiseLevelLoss(),
        Throughput(),
        LearningRateMonitor("step"),
        ModelCheckpoint(
            folder,
            filename="last",
            every_n_train_steps=diagnostics.checkpoint_every_n_steps,
            enable_version_counter=False,
            # Not on exceptions: amid a step, weights, averages and their counters do not fit together.
        ),
    ]
    if diagnostics.progress_bar:
        callbacks.append(ProgressBar())
    steps = config.training.max_steps
    return Trainer(
        accelerator=config.system.accelerator,
        precision=config.system.precision,
        max_steps=steps,
        val_check_interval=min(diagnostics.validation.every_n_steps, steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=diagnostics.log_every_n_steps,
        gradient_clip_val=config.training.gradient_clip,
        enable_progress_bar=diagnostics.progress_bar,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        logger=loggers,
        default_root_dir=folder,
    )


def export_release(run: Run, path: Path, training: dict[str, Any]) -> Path:
    """Write the task's model as a release checkpoint.

    Args:
        run: built, and either just fitted or loaded by `load_averaged`.
        path: where to.
        training: what the model card says of the training.
    """
    config, model, store, variables = run.config, run.task.model, run.store, run.variables
    graph = instantiate(config.graph, latitudes=store.latitudes, longitudes=store.longitudes)
    names = variables.prognostic + variables.forcing + variables.diagnostic
    normalizer, metadata = Normalizer.of(store, names), store.attributes.get("variables_metadata", {})
    roles = {
        name: role for role in ("prognostic", "forcing", "diagnostic") for name in getattr(variables, role)
    }
    release = Release(
        model=type(model).__name__,
        arguments=model.arguments,
        graph=graph.recipe,
        graph_fingerprint=fingerprint(graph),
        variables=[
            VariableInfo(
                name=name,
                role=roles[name],
                units=metadata.get(name, {}).get("units") or "1",
                long_name=metadata.get(name, {}).get("long_name") or name,
                mean=normalizer.mean[i].item(),
                stdev=normalizer.stdev[i].item(),
            )
            for i, name in enumerate(names)
        ],
        field_shape=list(store.field_shape),
        step=config.data.timestep,
        inference_defaults=config.model.model.diffusion.inference_defaults.model_dump(),
        store=config.dataloader.dataset,
        training=training,
    )
    save_release(path, release, model, store.latitudes, store.longitudes)
    return path


def load_averaged(run: Run) -> int:
    """Load the averaged weights of the run's last checkpoint into its task; returns the steps it has made."""
    checkpoint = torch.load(run.folder / "last.ckpt", map_location="cpu", weights_only=True)
    run.task.load_state_dict(checkpoint["state_dict"])
    return checkpoint["global_step"]


def _remember(config: Config, folder: Path) -> None:
    """Keep the config beside the run; refuse to go on with another one.

    What may differ is how the run is watched and on which machine it goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, now = folder / "config.yaml", config.model_dump(mode="json", by_alias=True)
    if path.exists() and (folder / "last.ckpt").exists():
        before = yaml.safe_load(path.read_text())
        changed = [
            f"{group}.{key}"
            for group in ("data", "dataloader", "graph", "model", "training")
            for key in sorted(now[group].keys() | before[group].keys())
            if now[group].get(key) != before[group].get(key) and key != "num_workers"
        ]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with another {', '.join(changed)}; resume with the same settings, "
                "or start another run with name=SOMETHING_ELSE"
            )
    path.write_text(yaml.safe_dump(now, sort_keys=False))
