"""The main job: train or resume, release the checkpoint, forecast from the test window, score, draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from rich.console import Console

from diffusion_lab import verification
from diffusion_lab.commands.report import save_report
from diffusion_lab.config import Config, ConfigError
from diffusion_lab.inference.forecaster import load_forecaster
from diffusion_lab.plots import training_curves
from diffusion_lab.stores.dates import lead_timedelta, spread_out
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.training.build import Run, build
from diffusion_lab.training.callbacks import LEVEL_BINS
from diffusion_lab.training.fit import fit
from diffusion_lab.training.release import export_release, own_parts


def train(config: Config, command: str) -> None:
    """Train or resume, release the checkpoint, then forecast from the test window and score.

    Args:
        config: what to train.
        command: what the user typed, for the model card.
    """
    console = Console(quiet=rank_zero_only.rank > 0)
    run = build(config)
    parameters = sum(p.numel() for p in run.task.model.parameters())
    console.print(
        f"[bold]{config.name}[/]: {type(run.task.model).__name__}, {parameters:,} parameters, "
        f"{len(run.data.train_set):,} samples of {run.store.path}, {config.training.max_steps} steps"
    )
    if (run.folder / "last.ckpt").exists():
        console.print(f"going on from {run.folder / 'last.ckpt'}")
    if own := own_parts(config):
        console.print(
            f"[yellow]{', '.join(own)}: a class of your own. A released checkpoint runs no code when it is "
            f"loaded, so none is written; the weights stay in {run.folder / 'last.ckpt'}, and in Python "
            "training.release.run_forecaster forecasts with them[/]"
        )
    if config.diagnostics.evaluation.enabled:
        evaluation_starts(run)  # a test window without data is an error now, not after the training
    seconds = fit(run)
    if own or run.task.global_rank > 0:  # of several processes one goes on alone
        return
    path = export_release(
        run, run.folder / f"{config.name}.safetensors", training_facts(run, command, seconds)
    )
    console.print(f"released checkpoint: {path}")
    if config.diagnostics.evaluation.enabled:
        evaluate(run, path, console)


def evaluate(run: Run, checkpoint: Path, console: Console) -> None:
    """Forecast from starts spread over the test window, print the score table, draw the pictures."""
    evaluation, test = run.config.diagnostics.evaluation, run.config.dataloader.test
    forecaster = load_forecaster(checkpoint)
    forecast = verification.forecast_ensembles(
        forecaster,
        evaluation_starts(run),
        evaluation.steps,
        evaluation.members,
        data=run.store,
        settings=forecaster.settings.with_num_steps(evaluation.num_steps),
        progress=run.config.diagnostics.progress_bar,
    )
    scores = verification.score(forecast, run.store)
    console.print(verification.score_table(scores, f"{checkpoint.stem}: {test.start} to {test.end}"))
    _, report = save_report(run.folder / "verification", forecast, scores, run.store, title=checkpoint.stem)
    console.print(f"report: {report.resolve()}; loss: {draw_training(run.folder)}")


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
    return spread_out(dates, evaluation.starts)


def draw_training(folder: Path) -> Path:
    """Draw the loss, in all and per noise-level bin, from the CSV log."""
    log = read_log(folder)
    bins = {label: log[name].to_numpy() for name, label in LEVEL_BINS.items() if name in log}
    figure = Figure(figsize=(8, 4), layout="constrained")
    training_curves(figure.subplots(), log["step"].to_numpy(), log["train/loss_mean"].to_numpy(), bins)
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
    loader, training, system = run.config.dataloader, run.config.training, run.config.system
    return {
        "command": command,
        "data": run.store.path,
        "window": [loader.training.start, loader.training.end],
        "test_window": [loader.test.start, loader.test.end],
        "samples": len(run.data.train_set),
        "steps": training.max_steps,
        "batch_size": loader.batch_size * system.devices * system.num_nodes,
        "seed": training.seed,
        "seconds": round(seconds),
        "torch": torch.__version__,
        "device": str(run.task.device),
        "threads": torch.get_num_threads(),
    } | ({"note": f"from the weights of {start}"} if (start := training.initial_weights) else {})
