"""Logging and progress during training."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from diffusion_lab.training.distributed import gather

# Edges of the noise-level bins, from almost no noise to almost no signal.
SIGMA_EDGES = (0.0, 0.1, 0.5, 2.0, 10.0, float("inf"))
LEVEL_BINS = {
    f"train/loss_sigma_bin_{i}": f"{low:g} – {high:g}" if high < float("inf") else f"> {low:g}"
    for i, (low, high) in enumerate(pairwise(SIGMA_EDGES))
}
"""The label of each bin, by its name in the logs."""


class NoiseLevelLoss(Callback):
    """Logs the mean loss since the last log, in total and per noise-level bin."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._sigmas: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Collect, and log every `log_every_n_steps`."""
        self._losses.append(outputs["sample_loss"].flatten())
        self._sigmas.append(outputs["sigma"].flatten())
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]  # set by Lightning
            return
        losses, sigmas = (
            torch.cat(gather([torch.cat(values).cpu()], trainer.world_size))
            for values in (self._losses, self._sigmas)
        )
        pl_module.log("train/loss_mean", losses.mean())
        for name, (low, high) in zip(LEVEL_BINS, pairwise(SIGMA_EDGES), strict=True):
            inside = (sigmas >= low) & (sigmas < high)
            if inside.any():
                pl_module.log(name, losses[inside].mean())
        self._losses.clear()
        self._sigmas.clear()


class Throughput(Callback):
    """Shows samples per second in the progress bar, a mean over the steps since the last log."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; again after validation, which does not count."""
        self._since, self._samples = time.monotonic(), 0

    on_validation_end = on_train_start

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and log every `log_every_n_steps`."""
        self._samples += len(batch[0]) * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            now = time.monotonic()
            pl_module.log("train/samples_per_s", self._samples / (now - self._since), prog_bar=True)
            self._since, self._samples = now, 0


class Stopwatch(Callback):
    """Seconds of training, summed over all sessions through the checkpoints."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"seconds": time.monotonic() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the seconds of a checkpoint."""
        self._began -= state_dict["seconds"]


class ProgressBar(TQDMProgressBar):
    """Steps, loss and samples per second; validation has no bar."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics under short names, without the logger's version number."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return {name.split("/")[-1]: value for name, value in shown.items()}

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Explain the wait for the first step, in place of the number of the only epoch."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("first step, which may compile loops")

    def on_train_batch_end(self, *args: Any) -> None:
        """Count the step."""
        self.train_progress_bar.set_description("training", refresh=False)
        super().on_train_batch_end(*args)
