"""`diffusion-lab data create | inspect | list`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from rich.table import Column, Table

from diffusion_lab.commands.console import console

_CREATE_HELP = """\
Create a store, the zarr folder that training and verification read, from a recipe.

A recipe is a YAML file that names the source files (netCDF, zarr or GRIB), the variables to keep, the
computed forcings to add, and the training period over which statistics are taken. The smallest is

    description: Daily fields over Europe
    source: data/*.nc
    statistics: {start: 2000, end: 2014}
    variables: {t2m: t2m, z500: {variable: z, level: 500}}
    forcings: [cos_latitude, sin_latitude, cos_julian_day, sin_julian_day]

The shipped recipes (diffusion-lab data list) can be given by name, and are meant to be copied and changed.
After an interruption the same command resumes and makes the same store."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command `data`; `run` in the parsed arguments is the function of the chosen subcommand."""
    text = "create and inspect stores: zarr folders in the layout of anemoi-datasets"
    data = subparsers.add_parser("data", help=text, description=f"{text.capitalize()}.")
    commands = data.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser(
        "create",
        help="create a store from a recipe",
        description=_CREATE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    create.add_argument("recipe", help="YAML file, name of a shipped recipe, or 'speedy'")
    create.add_argument("store", help="store to write, a local path or an fsspec URL; usually NAME.zarr")
    create.add_argument("--start", help="only with 'speedy': first date to simulate")
    create.add_argument("--end", help="only with 'speedy': last date to simulate")
    create.set_defaults(run=run_create)
    text = "show the dates, grid, size, variables, roles, units and statistics of a store"
    inspect = commands.add_parser("inspect", help=text, description=f"{text.capitalize()}.")
    inspect.add_argument("store", help="a local path or an fsspec URL of a store (zarr v2 or v3)")
    inspect.set_defaults(run=run_inspect)
    text = "list the recipes that `diffusion-lab data create` knows by name"
    listing = commands.add_parser("list", help=text, description=f"{text.capitalize()}.")
    listing.set_defaults(run=run_list)


def run_create(arguments: argparse.Namespace) -> None:
    """Create a store; see `create --help`."""
    from diffusion_lab.stores.inspect import describe_store

    if arguments.recipe == "speedy":
        from diffusion_lab.making.speedy.simulation import create_speedy_store
        from diffusion_lab.stores.dates import parse_date

        given = {"start": arguments.start, "end": arguments.end}
        dates: dict[str, Any] = {name: parse_date(date) for name, date in given.items() if date is not None}
        store = create_speedy_store(arguments.store, **dates)
    else:
        from diffusion_lab.making.create import create_from_recipe
        from diffusion_lab.making.recipes import load_recipe

        if arguments.start or arguments.end:
            raise ValueError("--start and --end are for 'speedy'; a recipe gives its dates under dates.")
        store = create_from_recipe(load_recipe(arguments.recipe), arguments.store, show_progress=True)
    console().print(describe_store(store))


def run_inspect(arguments: argparse.Namespace) -> None:
    """Show what is in a store."""
    from diffusion_lab.stores.inspect import describe_store
    from diffusion_lab.stores.store import open_store

    console().print(describe_store(open_store(arguments.store)))


def run_list(arguments: argparse.Namespace) -> None:
    """List the shipped recipes."""
    from diffusion_lab.making.recipes import shipped_recipes

    table = Table("recipe", "what it makes", Column("file", overflow="fold"))
    speedy = "a simulated atmosphere: the SPEEDY model at T31"
    table.add_row("speedy", speedy, "diffusion_lab/making/speedy/simulation.py")
    for name, file in shipped_recipes().items():
        table.add_row(name, yaml.safe_load(Path(file).read_text())["description"], str(file))
    console().print(table)
