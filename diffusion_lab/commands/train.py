"""`diffusion-lab train`: train or resume, release the checkpoint, forecast from the test window, score, draw.

With --multirun Hydra runs one training for each combination of values: one after the other, or several at
once with hydra/launcher=joblib. Its other launchers and sweepers work too.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console

from diffusion_lab import verification
from diffusion_lab.commands.console import console
from diffusion_lab.commands.report import save_report
from diffusion_lab.config import Config, ConfigError, compose, config_folder, validate
from diffusion_lab.config.composition import complete, hydra_overrides
from diffusion_lab.inference.forecaster import load_forecaster
from diffusion_lab.plots import training_curves
from diffusion_lab.stores.dates import spread_out
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.training.build import Run, build
from diffusion_lab.training.callbacks import LEVEL_BINS
from diffusion_lab.training.distributed import is_first
from diffusion_lab.training.fit import fit
from diffusion_lab.training.logs import read_log
from diffusion_lab.training.release import export_release, own_parts, training_facts


def train(config: Config, command: str) -> None:
    """Train or resume, release the checkpoint, then forecast from the test window and score.

    Args:
        config: what to train.
        command: as the user typed it, for the model card.
    """
    out = console(quiet=not is_first())
    run = build(config)
    parameters = sum(p.numel() for p in run.task.model.parameters())
    out.print(
        f"[bold]{config.name}[/]: {type(run.task.model).__name__}, {parameters:,} parameters, "
        f"{len(run.data.train_set):,} samples of {run.store.path}, {config.training.max_steps} steps"
    )
    if (run.folder / "last.ckpt").exists():
        out.print(f"resuming from {run.folder / 'last.ckpt'}")
    if own := own_parts(config):
        out.print(
            f"[yellow]{', '.join(own)}: your own class. A release checkpoint cannot contain code, so none is "
            f"written; the weights stay in {run.folder / 'last.ckpt'}[/]"
        )
    if config.diagnostics.evaluation.enabled:
        evaluation_starts(run)  # so that a test window without data is an error before the training
    seconds = fit(run)
    if own or run.task.global_rank > 0:  # of several processes only the first continues
        return
    facts = training_facts(run, command, seconds)
    path = export_release(run, run.folder / f"{config.name}.safetensors", facts)
    out.print(f"released checkpoint: {path}")
    if config.diagnostics.evaluation.enabled:
        evaluate(run, path, out)


def evaluate(run: Run, checkpoint: Path, out: Console) -> None:
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
    out.print(verification.score_table(scores, f"{checkpoint.stem}: {test.start} to {test.end}"))
    _, report = save_report(run.folder / "verification", forecast, scores, run.store, title=checkpoint.stem)
    out.print(f"report: {report.resolve()}; loss: {draw_training(run.folder)}")


def evaluation_starts(run: Run) -> np.ndarray:
    """Start dates spread over the test window, which contains all valid times of their forecasts.

    Raises:
        ValueError: the store has no such dates.
    """
    evaluation, test = run.config.diagnostics.evaluation, run.config.dataloader.test
    step = run.config.data.timestep
    dates = forecast_starts(run.store, step, run.config.training.multistep_input, test.period)
    dates = dates[dates + evaluation.steps * step <= dates[-1] + step]
    if len(dates) == 0:
        raise ConfigError(
            f"dataloader.test from {test.start} to {test.end} is shorter than a forecast of "
            f"diagnostics.evaluation.steps={evaluation.steps}"
        )
    return spread_out(dates, evaluation.starts)


def draw_training(folder: Path) -> Path:
    """Draw the loss, in total and per noise-level bin, from the CSV log."""
    log = read_log(folder)
    bins = {label: log[name].to_numpy() for name, label in LEVEL_BINS.items() if name in log}
    figure = Figure(figsize=(8, 4), layout="constrained")
    training_curves(figure.subplots(), log["step"].to_numpy(), log["train/loss_mean"].to_numpy(), bins)
    figure.savefig(folder / "loss.png", dpi=110)
    return folder / "loss.png"


def sweep(overrides: Sequence[str], config_name: str = "config", config_dir: str | None = None) -> None:
    """Train each combination of the overrides' values, such as "training.lr=1e-4,1e-3".

    A run is kept in FOLDER/KEY=VALUE,…, where FOLDER is `system.output` without the sweep and the keys are
    those with several values. The same command resumes runs that were stopped.

    Raises:
        ConfigError: no override has several values, or the config cannot be used.
    """
    # The progress bars of parallel runs would overwrite each other; they can be turned on explicitly.
    words = hydra_overrides(["diagnostics.progress_bar=false", *overrides], config_dir, sweep=True)
    asked = [word for word in words if not word.startswith("hydra.searchpath=")]
    try:
        parsed = OverridesParser.create().parse_overrides(asked)
    except HydraException as error:
        raise ConfigError(str(error)) from None
    fixed = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
    swept = [one for one in parsed if one.is_sweep_override()]
    if not swept:
        raise ConfigError("--multirun needs several values of a key, as in training.lr=1e-4,1e-3")
    # Report what is wrong with any run now rather than when its turn comes.
    choices = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        for one in swept
        if one.is_discrete_sweep()
    ]
    configs = [validate(compose([*fixed, *some], config_name, config_dir)) for some in product(*choices)]
    output = configs[0].system.output
    words += hydra_overrides(
        [f"hydra.sweep.dir={output}", f"hydra.sweep.subdir='{_folder_of(swept)}'", "hydra.job.chdir=false"]
    )
    run_all = hydra.main(
        version_base="1.3", config_path=str(config_folder(config_dir, config_name)), config_name=config_name
    )
    typed, sys.argv = sys.argv, ["diffusion-lab", "--multirun", *words]  # where Hydra reads its words
    try:
        run_all(_run_one)()
    finally:
        sys.argv = typed
    console().print(f"{len(configs)} runs: {output}")


def _run_one(config: DictConfig) -> None:
    """One run of a sweep, in its own folder."""
    job = HydraConfig.get()
    name = str(job.job.config_name)
    config = complete(config, name)
    config.system.output = job.runtime.output_dir
    command = ["diffusion-lab", "train", "--config-name", name, *map(str, job.overrides.task)]
    train(validate(config), command=shlex.join(command))


def _folder_of(swept: Sequence[Override]) -> str:
    """A pattern for the folder of a run: KEY=VALUE,… with each value as an interpolation."""
    names = [one.key_or_group for one in swept]
    values = [name if "." in name or name == "name" else f"hydra.runtime.choices.{name}" for name in names]
    return ",".join(f"{name}=${{{value}}}" for name, value in zip(names, values, strict=True))
