"""`diffusion-lab train --multirun`: Hydra's sweeps, a run for each combination of the values given.

Hydra itself runs them, so that its launchers and sweepers are there too: one after the other by default,
hydra/launcher=joblib for several at once.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from itertools import product

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from rich.console import Console

from diffusion_lab.commands.train import train
from diffusion_lab.config import ConfigError, complete, compose, config_folder, hydra_overrides, validate


def sweep(overrides: Sequence[str], config_name: str = "config", config_dir: str | None = None) -> None:
    """Train each combination of the overrides' values, such as "training.lr=1e-4,1e-3".

    A run lives in FOLDER/KEY=VALUE,…, where FOLDER is what `system.output` would be without the sweep and the
    keys are those that are swept. The same command goes on with runs that were stopped.

    Raises:
        ConfigError: no override has several values, or the config cannot be used.
    """
    # Bars of runs side by side would draw over each other; whoever wants them says so.
    parsed = _parse(overrides := ["diagnostics.progress_bar=false", *overrides])
    fixed = [one.input_line for one in parsed if not one.is_sweep_override()]
    swept = [one for one in parsed if one.is_sweep_override()]
    if not swept:
        raise ConfigError("--multirun wants values to choose from, as in training.lr=1e-4,1e-3")
    # What is wrong with a run is told now, not when its turn comes.
    choices = [_choices(one) for one in swept if one.is_discrete_sweep()]
    configs = [validate(compose([*fixed, *some], config_name, config_dir)) for some in product(*choices)]
    output = configs[0].system.output
    words = [
        *hydra_overrides(overrides, config_dir),
        f"hydra.sweep.dir='{output}'",
        f"hydra.sweep.subdir='{_folder_of(swept)}'",
        "hydra.job.chdir=false",
    ]
    run_all = hydra.main(
        version_base="1.3", config_path=str(config_folder(config_dir, config_name)), config_name=config_name
    )
    typed, sys.argv = sys.argv, ["diffusion-lab", "--multirun", *words]  # where Hydra reads its words
    try:
        run_all(run_one)()
    finally:
        sys.argv = typed
    Console().print(f"{len(configs)} runs: {output}")


def run_one(config: DictConfig) -> None:
    """One run of a sweep, in its own folder."""
    job = HydraConfig.get()
    config = complete(config, job.job.config_name)
    config.system.output = job.runtime.output_dir
    command = ["diffusion-lab", "train", "--config-name", job.job.config_name, *job.overrides.task]
    train(validate(config), command=shlex.join(command))


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(str(error)) from None


def _choices(override: Override) -> list[str]:
    """An override with several values as one override for each."""
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _folder_of(swept: Sequence[Override]) -> str:
    """A pattern for the folder of a run: KEY=VALUE,… with each value as an interpolation."""
    names = [one.key_or_group for one in swept]
    values = [name if "." in name or name == "name" else f"hydra.runtime.choices.{name}" for name in names]
    return ",".join(f"{name}=${{{value}}}" for name, value in zip(names, values, strict=True))
