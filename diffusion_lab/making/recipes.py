"""Recipes: the sources and contents of a store, written in YAML and checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from diffusion_lab.spelling import nearest
from diffusion_lab.stores.dates import lead_name, parse_date
from diffusion_lab.stores.forcings import COMPUTED_FORCINGS
from diffusion_lab.stores.store import Role


def _one_forcing(name: Any) -> Any:
    if name not in COMPUTED_FORCINGS:
        raise ValueError(f"unknown forcing {name!r}{nearest(str(name), COMPUTED_FORCINGS)}")
    return name


# Of the keys that are required.
_EXAMPLES = {
    "description": "description: Daily fields over Europe",
    "source": "source: data/*.nc",
    "statistics": "statistics: {start: 2000, end: 2014}",
    "variables": "variables: {t2m: t2m, z500: {variable: z, level: 500}}",
    "start": "start: 2000",
    "end": "end: 2014",
    "variable": "variable: t2m",
}

Date = Annotated[str, BeforeValidator(lambda value: str(parse_date(value)))]
Lead = Annotated[str, BeforeValidator(lead_name)]
Forcing = Annotated[str, BeforeValidator(_one_forcing)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        allowed = tuple(cls.model_fields)
        for key in values if isinstance(values, Mapping) else ():
            if key not in allowed:
                raise ValueError(f"unknown key {str(key)!r}{nearest(str(key), allowed)}")
        return values


class ConstantRecipe(_Strict):
    """A time-invariant field, always a forcing; a plain string is taken as `variable`.

    Attributes:
        variable: its name in the files.
        level: the value of its level coordinate, if it has several.
        units: replaces the units in the files.
        allow_nan: whether it may contain NaN.
    """

    variable: str
    level: float | None = None
    units: str | None = None
    allow_nan: bool = False


class VariableRecipe(ConstantRecipe):
    """A field that changes with time: a `ConstantRecipe` with the role forcing, prognostic or diagnostic."""

    role: Role = "prognostic"


def _bare_name(value: Any) -> Any:
    return {"variable": value} if isinstance(value, str) else value


class DatesRecipe(_Strict):
    """The dates; by default all those in the files.

    Attributes:
        start: the first.
        end: the last; `2020` or `2020-12-31` include all of that year or day.
        frequency: the time step; by default the most common one in the files.
        missing: dates without data, which stay in the store and are skipped in training.
    """

    start: Date | None = None
    end: Date | None = None
    frequency: Lead | None = None
    missing: tuple[Date, ...] = ()


class StatisticsRecipe(_Strict):
    """The training period, over which statistics are taken.

    Attributes:
        start: its first date.
        end: its last date, as in `dates`.
        tendencies: leads of the tendency statistics; by default the frequency, 6 h, 12 h and 1 d.
    """

    start: Date
    end: Date
    tendencies: tuple[Lead, ...] | None = None


class CoordinatesRecipe(_Strict):
    """Names of the coordinates in the files, where they cannot be guessed."""

    time: str | None = None
    latitude: str | None = None
    longitude: str | None = None


class Recipe(_Strict):
    """A recipe for a store.

    Attributes:
        description: one sentence that describes the store.
        licence: the data's licence.
        attribution: whom to credit.
        source: paths or globs (from the working directory) of netCDF, GRIB or zarr, or URLs of zarr.
        storage_options: options for the URL's file system, such as `{token: anon}`.
        coordinates: see `CoordinatesRecipe`.
        select: values of coordinates other than time, level and place, such as `{number: 0}` for the first
            member or `{step: 6h}` for a lead time.
        dates: see `DatesRecipe`.
        statistics: see `StatisticsRecipe`.
        variables: `VariableRecipe` by name in the store.
        constants: `ConstantRecipe` by name in the store.
        forcings: names of computed forcings.
        dates_per_chunk: dates in a chunk of the store; by default as many as fit in 1 MiB.
    """

    description: str
    licence: str = ""
    attribution: str = ""
    source: Annotated[tuple[str, ...], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]
    storage_options: dict[str, Any] = {}
    coordinates: CoordinatesRecipe = CoordinatesRecipe()
    select: dict[str, float | str] = {}
    dates: DatesRecipe = DatesRecipe()
    statistics: StatisticsRecipe
    variables: dict[str, Annotated[VariableRecipe, BeforeValidator(_bare_name)]] = Field(min_length=1)
    constants: dict[str, Annotated[ConstantRecipe, BeforeValidator(_bare_name)]] = {}
    forcings: tuple[Forcing, ...] = ()
    dates_per_chunk: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _distinct_names(self) -> Recipe:
        names = [*self.variables, *self.constants, *self.forcings]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"more than one variable is called {', '.join(twice)}")
        return self


def shipped_recipes() -> dict[str, Path]:
    """Names and files of the recipes that come with the package."""
    # In a wheel the configs are inside the package, in a checkout beside it.
    package = Path(str(files("diffusion_lab")))
    inside = package / "configs" / "recipes"
    folder = inside if inside.is_dir() else package.parent / "configs" / "recipes"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def load_recipe(recipe: str | Path) -> Recipe:
    """Read and check a recipe, given as a YAML file or by the name of a shipped recipe.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: naming every wrong key or value.
    """
    shipped = shipped_recipes()
    file = Path(recipe) if Path(recipe).is_file() else shipped.get(str(recipe))
    if file is None:
        names = ", ".join(shipped)
        raise FileNotFoundError(f"There is no recipe file {str(recipe)!r}; the shipped recipes are {names}.")
    try:
        return parse_recipe(yaml.safe_load(file.read_text()))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}:\n{indent(str(error), '  ')}") from error


def parse_recipe(content: Any) -> Recipe:
    """Check the content of a recipe.

    Raises:
        ValueError: with a line for every wrong or missing key or value.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ValueError("\n".join(map(_describe, error.errors()))) from None


def _describe(problem: ErrorDetails) -> str:
    place = ".".join(map(str, problem["loc"])) or "recipe"
    if problem["type"] == "missing":
        return f"{place} is missing; write for example {_EXAMPLES[str(problem['loc'][-1])]}"
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}"
