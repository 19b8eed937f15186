"""`diffusion-lab`: data, training, forecasts, verification and the lab from the shell."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from diffusion_lab import __version__
from diffusion_lab.commands.console import console
from diffusion_lab.commands.data import add_parser as add_data_parser

_DESCRIPTION = """\
Diffusion-based probabilistic weather forecasting on graphs.

  diffusion-lab train                                         train on the example atmosphere, then forecast
                                                              and verify: about ten minutes on a laptop
  diffusion-lab forecast checkpoint=example-tendency date=2025-01-01 output=forecast.nc
  diffusion-lab verify checkpoint=example-tendency            score a checkpoint on its test year
  diffusion-lab tune checkpoint=example-tendency              search for the best sampler setting
  diffusion-lab data create RECIPE.yaml OUT.zarr              make a store of your own data
  diffusion-lab lab                                           the tutorials in JupyterLab
  diffusion-lab guide                                         moving from ECMWF's guide and Anemoi

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
If it is stopped, even killed, the same command resumes it and reaches the same weights."""

_REQUESTS = {
    "forecast": "make an ensemble forecast",
    "verify": "score a checkpoint or a forecast file against a store",
    "tune": "search for the best sampler setting",
    "publish": "score a run's checkpoint and release it (for maintainers)",
}

_LAB = """\
Open JupyterLab on the tutorials, or serve the sampler tuner alone as an app.

  diffusion-lab lab                                  the tutorials, in your browser
  diffusion-lab lab --tuner                          see what sigma_max, rho and S_churn do to a forecaster
  diffusion-lab lab --no-browser --port 9000         on a server: open the printed address yourself
  diffusion-lab lab -- --ip=0.0.0.0 --allow-root     after --, any option of JupyterLab or of Voilà (--tuner)

In a checkout the tutorials are opened in notebooks/. Otherwise they are copied to
./diffusion_lab_notebooks, where existing files are kept. Ctrl-C stops the server."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors of use are one message and exit status 2."""
    arguments = build_parser().parse_args(argv)
    # Schedulers and `kill` send SIGTERM; it ends a command as Ctrl-C does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments.run(arguments)
    except (ValueError, TypeError, KeyError, OSError, ImportError, FloatingPointError) as error:
        if arguments.traceback:
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"diffusion-lab: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to resume.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; what they need is imported when they run."""
    parser_class: Any = partial(argparse.ArgumentParser, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser = parser_class("diffusion-lab", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=parser_class)
    add_data_parser(commands)
    _add_train_parser(commands)
    for name, text in _REQUESTS.items():
        command = commands.add_parser(name, help=text, add_help=False)
        command.add_argument("-h", "--help", action="store_true", help=argparse.SUPPRESS)
        command.add_argument("settings", nargs="*", metavar="FILE.yaml | KEY=VALUE")
        command.set_defaults(run=partial(_run_request, name), usage=command.format_usage())
    _add_lab_parser(commands)
    text = "how to move from ECMWF's guide: its commands, its names and ours, where each setting is"
    guide = commands.add_parser("guide", help=text, description=f"Print {text}.")
    guide.set_defaults(run=_guide)
    return parser


def _add_train_parser(commands: argparse._SubParsersAction) -> None:
    text = "train a forecaster, then forecast and verify"
    train = commands.add_parser("train", help=text, description=_TRAIN)
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    train.add_argument("--config-dir", help="your own config files, searched before the shipped ones")
    train.add_argument("--config-name", default="config", help="the file to start from (default: config)")
    train.add_argument("--cfg", choices=["job"], help="print the composed config and stop")
    train.add_argument("-m", "--multirun", action="store_true", help="a run for each of KEY=VALUE,VALUE")
    train.add_argument("--resolve", action="store_true", help="with --cfg: fill in ${interpolations}")
    train.set_defaults(run=_train)


def _add_lab_parser(commands: argparse._SubParsersAction) -> None:
    text = "open the tutorials in JupyterLab, or the sampler tuner as an app"
    lab = commands.add_parser("lab", help=text, description=_LAB)
    what = lab.add_mutually_exclusive_group()
    what.add_argument("--tuner", action="store_true", help="serve the sampler tuner alone, through Voilà")
    what.add_argument("--notebooks", metavar="FOLDER", help="open your own notebooks, not the tutorials")
    lab.add_argument("--port", type=int, help="port to listen on (default: 8888, tuner 8866, or a free one)")
    lab.add_argument("--no-browser", action="store_true", help="open no browser, only print the address")
    lab.add_argument("options", nargs="*", metavar="-- OPTION", help="options of JupyterLab or of Voilà")
    lab.set_defaults(run=_lab)


def _run_request(name: str, arguments: argparse.Namespace) -> None:
    """Run a command that is described by a request, or print its help."""
    module = import_module(f"diffusion_lab.commands.{name}")
    request = getattr(module, f"{name.capitalize()}Request")
    if arguments.help:
        from diffusion_lab.commands.requests import help_of

        print(f"{arguments.usage}\n{help_of(request)}")
        sys.exit(0)
    getattr(module, f"run_{name}")(request.parse(arguments.settings))


def _guide(arguments: argparse.Namespace) -> None:
    from diffusion_lab.commands.guide import show_guide

    show_guide(console())


def _train(arguments: argparse.Namespace) -> None:
    from omegaconf import OmegaConf

    from diffusion_lab.config import compose, validate

    asked = arguments.overrides, arguments.config_name, arguments.config_dir
    if arguments.multirun:
        from diffusion_lab.commands.train import sweep

        sweep(*asked)
        return
    composed = compose(*asked)
    if arguments.cfg:
        print(OmegaConf.to_yaml(composed, resolve=arguments.resolve), end="")
        return
    config = validate(composed)
    from diffusion_lab.commands.train import train

    own = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    words = ["diffusion-lab", "train", *own, "--config-name", arguments.config_name, *arguments.overrides]
    train(config, command=shlex.join(words))


def _lab(arguments: argparse.Namespace) -> None:
    from diffusion_lab.commands.lab import open_lab, serve_tuner

    own = ["--no-browser"] if arguments.no_browser else []
    own += [] if arguments.port is None else [f"--port={arguments.port}"]
    own += arguments.options
    if arguments.tuner:
        serve_tuner(own)
    else:
        open_lab(arguments.notebooks, own)
