"""`diffusion-lab`: data, training, forecasts, verification and the lab from the shell."""

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
  diffusion-lab tune checkpoint=example-tendency              search for the best sampler setting
  diffusion-lab data create RECIPE.yaml OUT.zarr              make a store of your own data
  diffusion-lab lab                                           the tutorials in JupyterLab
  diffusion-lab guide                                         how to come from ECMWF's guide, and Anemoi

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
  diffusion-lab train --config-dir . --config-name mine        your own ./mine.yaml; see diffusion-lab guide
  diffusion-lab train --multirun training.lr=1e-4,1e-3 hydra/launcher=joblib
                                                               a run for each value, several at once
                                                               (needs pip install "diffusion-lab[sweep]")
  diffusion-lab train --cfg job --resolve                      show the config and stop

A run lives in runs/NAME: checkpoints, logs (CSV and TensorBoard), the released checkpoint, pictures.
Stopped, by Ctrl-C or worse? The same command goes on where it was and reaches the same weights."""

_ERRORS_OF_USE = (ValueError, TypeError, KeyError, OSError, ImportError, FloatingPointError)

_FORECAST = """\
Make an ensemble forecast and write it to a file.

  diffusion-lab forecast checkpoint=example-tendency date=2025-01-01 members=16 output=forecast.nc
  diffusion-lab forecast run.yaml members=50         keys from a file, overridden on the command line

keys: checkpoint    a released name or a path (.safetensors)
      date          start, such as 2025-01-01 or 2025-01-01T12; several with commas, a file each
      lead_time     how far, such as 10d or 36h (default 10d)
      members, seed ensemble size (16) and seed (0); a member is the same in ensembles of any size
      output        NAME.nc or NAME.zarr (default forecast.nc), written as the forecast goes
      data          store to start from (default: the one the checkpoint names)
      device        cpu, cuda, or auto (default)
      devices       how many share the members, or the starts if there are several (1): GPUs, or processes
      predict_kwargs.noise_scheduler_params.KEY    num_steps, sigma_max, sigma_min, rho, schedule_type, …
      predict_kwargs.sampler_params.KEY            sampler, S_churn, S_min, S_max, S_noise,
                                                   noise_correlation (between forecast steps), …"""

_VERIFY = """\
Score a checkpoint, or a forecast file, against a store and simple forecasts: persistence, climatology, the
weather of other years, and the deterministic forecast of the same network (one network call a step).

  diffusion-lab verify checkpoint=example-tendency             the protocol: test year, 26 starts, 16 members
  diffusion-lab verify checkpoint=example-state starts=4 members=4 lead_time=1d     a quick look
  diffusion-lab verify forecast=forecast.nc data=example

A table appears on the screen; OUTPUT/report.html holds all lead times and pictures, OUTPUT/scores.nc the
numbers. Forecasts are kept in OUTPUT/forecasts: stopped, the same command goes on where it was.

keys: checkpoint    a released name or a path; forecasts are made from it
      forecast      or: a forecast file (.nc or .zarr); then `data` is needed
      data          store with the truth (default: the one the checkpoint names)
      start, end    window of the starts (default: the checkpoint's test window, or 2025)
      starts        how many (26), every how long (14d)
      lead_time     how far (5d)
      members, seed ensemble size (16) and seed (0)
      output        folder of scores.nc, report.html and the forecasts (default: verification)
      device        cpu, cuda, or auto (default)
      predict_kwargs.…   as in forecast"""


_LAB = """\
Open JupyterLab on the tutorials, or serve the sampler tuner alone as an app.

  diffusion-lab lab                                  the tutorials, in your browser
  diffusion-lab lab --tuner                          feel what sigma_max, rho and S_churn do to a forecaster
  diffusion-lab lab --no-browser --port 9000         on a server: open the printed address yourself
  diffusion-lab lab -- --ip=0.0.0.0 --allow-root     after --, any option of JupyterLab or of Voilà (--tuner)

In a checkout the notebooks are those of notebooks/. Installed without one, the tutorials are copied to
./diffusion_lab_notebooks; those that are there already are kept as they are. Ctrl-C stops the server."""


_TUNE = """\
Search for the sampler setting that makes the best ensemble for the network calls you can afford.

  diffusion-lab tune checkpoint=example-tendency
  diffusion-lab tune checkpoint=example-tendency max_calls=10 trials=100 minutes=30 output=cheap
  diffusion-lab tune checkpoint=example-tendency "space.sampler=[deis,heun]" "space.sigma_max=[20,80]"
  diffusion-lab forecast tuning/predict_kwargs.yaml checkpoint=example-tendency date=2025-01-01

A setting's score is the fair CRPS in units of persistence's mean absolute error, averaged over variables:
0 is perfect, 1 as good as persistence. Optuna proposes settings; all are scored on the same dates with the
same noise, and those that lag behind are stopped. In the end the best of each cost is held against a default
on dates that the search never saw. Stopped? The same command goes on; with more trials= it searches further.

keys: checkpoint    a released name or a path
      trials        settings to try in all (60); minutes: begin no trial after so many
      max_calls     most network calls for a forecast step (20); settings that need more are never run
      members, seed ensemble size (8) and seed (0)
      lead_time     how far to forecast (1d)
      start, end    window to search on (default: from the end of the training window to the unseen dates)
      starts        dates in it (8); few dates and members make a trial cheap, more make it sure
      unseen_start, unseen_end           window to judge by (the checkpoint's test window, or 2025)
      unseen_starts, unseen_every        how many dates (13), every how long (28d)
      space.KEY     what to choose from: sampler, schedule_type (lists of names), num_steps, sigma_max,
                    sigma_min, rho, S_churn, S_min, S_max, S_noise ([lowest,highest], or a value to keep)
      predict_kwargs.…   changes the setting to beat: 50 steps of Heun's method without churn, 99 calls
      data, device  as in forecast
      output        folder (tuning) of predict_kwargs.yaml, report.txt, trials.csv, search.png, the study"""


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
    from diffusion_lab.commands.data import add_parser as add_data_parser

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
    _add_tune_parser(commands)
    _add_lab_parser(commands)
    _add_guide_parser(commands)
    return parser


def _add_guide_parser(commands: argparse._SubParsersAction) -> None:
    text = "how to come from ECMWF's guide: its commands, its names and ours, what stands where"
    guide = commands.add_parser("guide", help=text, description=f"Print {text}.")
    guide.set_defaults(run=_guide)


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
    train.add_argument(
        "-m", "--multirun", action="store_true", help="sweep: a run for each combination of KEY=VALUE,VALUE"
    )
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


def _add_lab_parser(commands: argparse._SubParsersAction) -> None:
    lab = commands.add_parser(
        "lab",
        help="open the tutorials in JupyterLab, or the sampler tuner as an app",
        description=_LAB,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = lab.add_mutually_exclusive_group()
    what.add_argument("--tuner", action="store_true", help="serve the sampler tuner alone, through Voilà")
    what.add_argument("--notebooks", metavar="FOLDER", help="open your own notebooks, not the tutorials")
    lab.add_argument(
        "--port", type=int, help="port to listen on (default: 8888, the tuner 8866; else one that is free)"
    )
    lab.add_argument("--no-browser", action="store_true", help="open no browser, only print the address")
    lab.add_argument("options", nargs="*", metavar="-- OPTION", help="options of JupyterLab or of Voilà")
    lab.set_defaults(run=_lab)


def _add_tune_parser(commands: argparse._SubParsersAction) -> None:
    tune = commands.add_parser(
        "tune",
        help="search for the best sampler setting",
        description=_TUNE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tune.add_argument("settings", nargs="*", metavar="FILE.yaml | KEY=VALUE")
    tune.set_defaults(run=_tune)


def _guide(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from diffusion_lab.commands.guide import show_guide

    show_guide(Console(highlight=False))


def _train(arguments: argparse.Namespace) -> None:
    from omegaconf import OmegaConf

    from diffusion_lab.config import compose, validate

    if arguments.multirun:
        from diffusion_lab.commands.sweep import sweep

        sweep(arguments.overrides, arguments.config_name, arguments.config_dir)
        return
    composed = compose(arguments.overrides, arguments.config_name, arguments.config_dir)
    if arguments.cfg:
        print(OmegaConf.to_yaml(composed, resolve=arguments.resolve), end="")
        return
    config = validate(composed)
    from diffusion_lab.commands.train import train

    own = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    words = ["diffusion-lab", "train", *own, "--config-name", arguments.config_name, *arguments.overrides]
    train(config, command=shlex.join(words))


def _forecast(arguments: argparse.Namespace) -> None:
    from diffusion_lab.commands.requests import ForecastRequest, run_forecast

    run_forecast(ForecastRequest.parse(arguments.settings))


def _verify(arguments: argparse.Namespace) -> None:
    from diffusion_lab.commands.requests import VerifyRequest, run_verify

    run_verify(VerifyRequest.parse(arguments.settings))


def _tune(arguments: argparse.Namespace) -> None:
    from diffusion_lab.commands.tune import TuneRequest, run_tune

    run_tune(TuneRequest.parse(arguments.settings))


def _lab(arguments: argparse.Namespace) -> None:
    from diffusion_lab.commands.lab import open_lab, serve_tuner

    own = ["--no-browser"] if arguments.no_browser else []
    if arguments.port is not None:
        own.append(f"--port={arguments.port}")
    own += arguments.options
    if arguments.tuner:
        serve_tuner(own)
    else:
        open_lab(arguments.notebooks, own)


if __name__ == "__main__":
    sys.exit(main())
