"""Fitting a run with Lightning: a resumable folder and averaged weights."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from diffusion_lab.acceleration import accelerate
from diffusion_lab.config import Config, ConfigError
from diffusion_lab.training.build import Run
from diffusion_lab.training.callbacks import NoiseLevelLoss, ProgressBar, Stopwatch, Throughput
from diffusion_lab.training.distributed import is_first
from diffusion_lab.training.lock import hold

# What may differ when a run is resumed: the kind of device, the number of readers, where files are.
_MAY_CHANGE = {"dataloader.num_workers"} | {
    f"system.{key}" for key in ("accelerate", "accelerator", "input", "output", "threads")
}


def fit(run: Run, callbacks: Sequence[Callback] = ()) -> float:
    """Train, or resume from the run's folder; the task ends with its averaged weights.

    Args:
        run: built, and not yet started.
        callbacks: further ones, such as a `TrainingMonitor`'s.

    Returns:
        Seconds of training over all sessions.

    Raises:
        KeyboardInterrupt: stopped by the user; the last checkpoint is on disk.
        ConfigError: the folder holds a run with other settings, another process trains in it, or the machine
            lacks the devices.
    """
    config, folder = run.config, run.folder
    last = folder / "last.ckpt"
    # Of the processes of one training, the first locks the folder.
    with hold(folder) if is_first() else nullcontext():
        _remember(config, folder)
        if config.system.threads:
            torch.set_num_threads(config.system.threads)
        if last.exists() and load_averaged(run) == config.training.max_steps:
            return _trained_seconds(last)
        with quiet_lightning():
            trainer = build_trainer(config, folder, callbacks)
            if config.system.accelerate and trainer.strategy.root_device.type == "cpu":
                accelerate(run.task.model)
            try:
                trainer.fit(run.task, run.data, ckpt_path=last if last.exists() else None, weights_only=True)
                trainer.save_checkpoint(last)  # of the last step, whatever the interval
            except SystemExit:
                # Lightning's answer to Ctrl-C; a notebook must survive it, and a shell must learn of it.
                raise KeyboardInterrupt from None
        return _trained_seconds(last)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advertising, and its warnings that are expected or wrong here."""
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
            warnings.filterwarnings("ignore", message=f".*({'|'.join(expected)})")
            yield
    finally:
        logger.setLevel(level)


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint atomically; Lightning itself copies if /tmp is on another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the path, then rename."""
        partial = f"{path}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        os.replace(partial, path)


def build_trainer(config: Config, folder: Path, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Lightning's trainer; it counts in steps, and the whole training is one epoch.

    Raises:
        ConfigError: the machine lacks the accelerator, or has fewer devices.
    """
    diagnostics, system = config.diagnostics, config.system
    # Each session, first or resumed, logs to its own folder: version_0, version_1, …
    loggers: list[Any] = [CSVLogger(folder, name="csv")]
    if diagnostics.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard"))
    own = [
        EMAWeightAveraging(decay=config.training.ema_decay, use_buffers=False),
        NoiseLevelLoss(),
        Throughput(),
        Stopwatch(),
        LearningRateMonitor("step"),
        ModelCheckpoint(
            folder,
            filename="last",
            every_n_train_steps=diagnostics.checkpoint_every_n_steps,
            enable_version_counter=False,
            # Not on exceptions: within a step, weights, averages and counters are inconsistent.
        ),
    ]
    if diagnostics.progress_bar:
        own.append(ProgressBar())
    steps = config.training.max_steps
    try:
        return Trainer(
            accelerator=system.accelerator,
            devices=system.devices,
            num_nodes=system.num_nodes,
            use_distributed_sampler=False,  # `StepSampler` deals the samples out
            precision=system.precision,
            max_steps=steps,
            val_check_interval=min(diagnostics.validation.every_n_steps, steps),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=min(diagnostics.log_every_n_steps, steps),
            gradient_clip_val=config.training.gradient_clip,
            enable_progress_bar=diagnostics.progress_bar,
            enable_model_summary=False,
            callbacks=[*own, *callbacks],
            plugins=[WholeCheckpoints()],
            logger=loggers,
            default_root_dir=folder,
        )
    except MisconfigurationException as error:
        raise ConfigError(
            f"system.accelerator = {system.accelerator} with system.devices = {system.devices}: "
            f"{' '.join(str(error).split())} Take system.accelerator=auto, or fewer system.devices"
        ) from None


def load_averaged(run: Run) -> int:
    """Load the averaged weights of the run's last checkpoint into its task; returns the checkpoint's step."""
    checkpoint = torch.load(run.folder / "last.ckpt", map_location="cpu", weights_only=True)
    run.task.load_state_dict(checkpoint["state_dict"])
    return checkpoint["global_step"]


def _trained_seconds(checkpoint: Path) -> float:
    states = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
    return states.get(Stopwatch.__name__, {"seconds": 0.0})["seconds"]  # older checkpoints have none


def _remember(config: Config, folder: Path) -> None:
    """Keep the config in the run's folder; refuse to resume with another one.

    Diagnostics and `_MAY_CHANGE` may differ; another number of devices would change the batch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, now = folder / "config.yaml", config.model_dump(mode="json", by_alias=True)
    if path.exists() and (folder / "last.ckpt").exists():
        before = yaml.safe_load(path.read_text())
        changed = [
            f"{group}.{key}"
            for group in ("data", "dataloader", "graph", "model", "training", "system")
            for key in sorted(now[group].keys() | before[group].keys())
            if now[group].get(key) != before[group].get(key) and f"{group}.{key}" not in _MAY_CHANGE
        ]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with another {', '.join(changed)}; resume with the same settings, "
                "or start another run with name=SOMETHING_ELSE"
            )
    if is_first():
        path.write_text(yaml.safe_dump(now, sort_keys=False))
