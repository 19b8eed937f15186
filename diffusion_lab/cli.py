"""`diffusion-lab`: data, training, forecasts and verification from the shell."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from diffusion_lab import __version__

_DESCRIPTION = """\
Diffusion-based probabilistic weather forecasting on graphs.

  diffusion-lab train                                         train on the example atmosphere, then forecast
                                                              and verify: about ten minutes on a laptop
  diffusion-lab forecast checkpoint=example-tendency date=2025-01-01 output=forecast.nc
  diffusion-lab verify checkpoint=example-tendency            score a checkpoint on its test year
  diffusion-lab data create RECIPE.yaml OUT.zarr              make a store of your own data

Settings are given as key=value. Each command's --help lists its keys."""

_TRAIN = """\
Train a forecaster, then forecast from the test window and score the forecasts.

Settings come from config groups (Hydra); each can be replaced or overridden:

  diffusion-lab train                                          the small default, on the example atmosphere
  diffusion-lab train model=transformer_diffusion              another group file
  diffusion-lab train training.max_steps=5000 training.lr=5e-4 name=longer
  diffusion-lab train system.input.dataset=mine.zarr data.timestep=1d \\
      dataloader.training.start=2000 dataloader.training.end=2014 \\
      dataloader.validation.start=2015 dataloader.validation.end=2015 \\
      dataloader.test.start=2016 dataloader.test.end=2016
  diffusion-lab train --cfg job --resolve                      show the config and stop

A run lives in runs/NAME: checkpoints, logs (CSV and TensorBoard), the released checkpoint, pictures.
Stopped, by Ctrl-C or worse? The same command goes on where it was and reaches the same weights."""

_ERRORS_OF_USE = (
    ValueError,
    TypeError,
    KeyError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    ImportError,
)

_FORECAST = """\
Make an ensemble forecast and write it to a file.

  diffusion-lab forecast checkpoint=example-tendency date=2025-01-01 members=16 output=forecast.nc
  diffusion-lab forecast run.yaml members=50         keys from a file, overridden on the command line

keys: checkpoint    a released name or a path (.safetensors)
      date          start, such as 2025-01-01 or 2025-01-01T12
      lead_time     how far, such as 10d or 36h (default 10d)
      members, seed ensemble size (16) and seed (0); a member is the same in ensembles of any size
      output        NAME.nc or NAME.zarr (default forecast.nc), written as the forecast goes
      data          store to start from (default: the one the checkpoint names)
      device        cpu, cuda, or auto (default)
      predict_kwargs.noise_scheduler_params.KEY    num_steps, sigma_max, sigma_min, rho, schedule_type, …
      predict_kwargs.sampler_params.KEY            sampler, S_churn, S_min, S_max, S_noise, …"""

_VERIFY = """\
Score a checkpoint, or a forecast file, against a store, persistence and climatology.

  diffusion-lab verify checkpoint=example-tendency
  diffusion-lab verify checkpoint=example-state starts=26 every=14d steps=5 members=16
  diffusion-lab verify forecast=forecast.nc data=example

keys: checkpoint    a released name or a path; forecasts are made from it
      forecast      or: a forecast file (.nc or .zarr); then `data` is needed
      data          store with the truth (default: the one the checkpoint names)
      start, end    window of the starts (default: 2025)
      starts        how many (26), every how long (14d)
      steps         forecast steps (1)
      members, seed ensemble size (16) and seed (0)
      output        folder of scores.nc and pictures (default: verification)
      device        cpu, cuda, or auto (default)
      predict_kwargs.…   as in forecast"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors of use are one message and exit status 2."""
    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except _ERRORS_OF_USE as error:
        if arguments.traceback:
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"diffusion-lab: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from diffusion_lab.data.cli import add_parser as add_data_parser

    parser = argparse.ArgumentParser(
        "diffusion-lab", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_data_parser(commands)
    _add_train_parser(commands)
    _add_forecast_parser(commands)
    _add_verify_parser(commands)
    return parser


def _add_train_parser(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train",
        help="train a forecaster, then forecast and verify",
        description=_TRAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    train.add_argument("--config-dir", help="your own config files, searched before the shipped ones")
    train.add_argument("--config-name", default="config", help="the file to start from (default: config)")
    train.add_argument("--cfg", choices=["job"], help="print the composed config and stop")
    train.add_argument("--resolve", action="store_true", help="with --cfg: fill in ${interpolations}")
    train.set_defaults(run=_train)


def _add_forecast_parser(commands: argparse._SubParsersAction) -> None:
    forecast = commands.add_parser(
        "forecast",
        help="make an ensemble forecast",
        description=_FORECAST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    forecast.add_argument("settings", nargs="*", metavar="FILE.yaml | KEY=VALUE")
    forecast.set_defaults(run=_forecast)


def _add_verify_parser(commands: argparse._SubParsersAction) -> None:
    verify = commands.add_parser(
        "verify",
        help="score a checkpoint or a forecast file against a store",
        description=_VERIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("settings", nargs="*", metavar="FILE.yaml | KEY=VALUE")
    verify.set_defaults(run=_verify)


def _train(arguments: argparse.Namespace) -> None:
    from omegaconf import OmegaConf

    from diffusion_lab.config import compose, validate

    composed = compose(arguments.overrides, arguments.config_name, arguments.config_dir)
    if arguments.cfg:
        print(OmegaConf.to_yaml(composed, resolve=arguments.resolve), end="")
        return
    config = validate(composed)
    from diffusion_lab.training.run import train

    own = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    words = ["diffusion-lab", "train", *own, "--config-name", arguments.config_name, *arguments.overrides]
    train(config, command=shlex.join(words))


def _forecast(arguments: argparse.Namespace) -> None:
    from diffusion_lab.inference.requests import ForecastRequest, run_forecast

    run_forecast(ForecastRequest.parse(arguments.settings))


def _verify(arguments: argparse.Namespace) -> None:
    from diffusion_lab.inference.requests import VerifyRequest, run_verify

    run_verify(VerifyRequest.parse(arguments.settings))


if __name__ == "__main__":
    sys.exit(main())
