"""`TrainingMonitor`: the loss in each bin of noise levels, drawn while Lightning trains."""

from __future__ import annotations

import math
import time
from typing import Any

from ipywidgets import HTML, HBox, IntProgress, VBox
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from diffusion_lab.plots import training_curves
from diffusion_lab.training.callbacks import LEVEL_BINS, NoiseLevelLoss
from diffusion_lab.widgets.chart_image import Chart, Pictured, turning

SHARE = 0.05  # of the training time that may go into drawing


class TrainingMonitor(Pictured, VBox):
    """Progress and loss curves of a training, in a notebook.

    Show `monitor = TrainingMonitor()` in one cell and train in the next, by `fit(run, [monitor.callback])` or
    with a trainer of your own, `Trainer(callbacks=[NoiseLevelLoss(), monitor.callback])`.

    Attributes:
        callback: Lightning's callback that feeds it.
        steps: the optimiser steps that were logged.
        losses: the mean loss since the log before, by its name in Lightning's logs; NaN where none was.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: dict[str, list[float]] = {name: [] for name in ("train/loss_mean", *LEVEL_BINS)}
        self.chart = Chart("training loss by noise level", 8.0, 3.6, steady=False)
        self.progress = IntProgress(layout={"width": "300px"})
        self.text = HTML("no training yet")
        self._drawn = 0.0  # until when no picture is due
        self._began = (0.0, 0)
        self.callback = _Follow(self)
        super().__init__([turning(self.chart), HBox([self.progress, self.text]), self.chart])
        self._draw()

    def figure(self) -> Figure:
        """The curves as they stand."""
        return self.chart.figure

    def summary(self) -> str:
        """How far the training is; what it reached differs between machines."""
        return f"TrainingMonitor(step {self.steps[-1] if self.steps else 0} of {self.progress.max})"

    def begin(self, step: int, last: int) -> None:
        """A training starts, or goes on, at a step."""
        self.progress.max, self.progress.value = last, step
        self._began = time.monotonic(), step

    def add(self, step: int, losses: dict[str, float]) -> None:
        """Take what was logged at a step; draw it if a picture is due."""
        self.steps.append(step)
        for name, values in self.losses.items():
            values.append(losses.get(name, math.nan))
        since, first = self._began
        left = (time.monotonic() - since) / max(step - first, 1) * (self.progress.max - step)
        self.progress.value = step
        self.text.value = (
            f"step {step} of {self.progress.max}, loss {self.losses['train/loss_mean'][-1]:.3g}, "
            f"{left / 60:.0f} min {left % 60:.0f} s left"
        )
        if time.monotonic() >= self._drawn:
            self._draw()

    def end(self) -> None:
        """Draw the last picture."""
        self._draw()

    def _draw(self) -> None:
        began = time.monotonic()
        with self.chart.redraw() as figure:
            self._draw_curves(figure)
        took = time.monotonic() - began
        self._drawn = time.monotonic() + took / SHARE

    def _draw_curves(self, figure: Figure) -> None:
        if not self.steps:
            figure.text(0.5, 0.5, "the loss appears here once it is logged", ha="center", color="0.4")
            return
        bins = {LEVEL_BINS[name]: values for name, values in self.losses.items() if name in LEVEL_BINS}
        ax = figure.subplots()
        training_curves(ax, self.steps, self.losses["train/loss_mean"], bins)
        legend = ax.get_legend()
        assert legend is not None
        legend.set(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # not on the curves


class _Follow(Callback):
    """Hands on what Lightning logs."""

    def __init__(self, monitor: TrainingMonitor) -> None:
        self.monitor = monitor

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there will be something to show."""
        if not any(isinstance(callback, NoiseLevelLoss) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                "TrainingMonitor draws what NoiseLevelLoss logs: Trainer(callbacks=[NoiseLevelLoss(), "
                "monitor.callback])"
            )
        self.monitor.begin(trainer.global_step, int(trainer.estimated_stepping_batches))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take what `NoiseLevelLoss`, earlier among the callbacks, has just logged."""
        # Lightning gives its trainer this attribute, and the callbacks, outside the class.
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            logged = trainer.callback_metrics
            self.monitor.add(trainer.global_step, {name: float(value) for name, value in logged.items()})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last picture."""
        self.monitor.end()
