"""Creating a store from a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import dask
import dask.array as da
import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from diffusion_lab.making.metadata import StoreMetadata, Variable
from diffusion_lab.making.recipes import ConstantRecipe, Recipe, VariableRecipe
from diffusion_lab.making.sources import Field, Sources
from diffusion_lab.making.writer import StoreWriter
from diffusion_lab.stores.dates import lead_name, lead_timedelta, period, show_date
from diffusion_lab.stores.forcings import CONSTANT_FORCINGS, compute_forcing
from diffusion_lab.stores.store import Store


def create_from_recipe(recipe: Recipe, path: str | PathLike[str], show_progress: bool = False) -> Store:
    """Create the store of a recipe, or finish one that was interrupted.

    Args:
        recipe: the recipe.
        path: local path or fsspec URL of the store.
        show_progress: draw a progress bar.

    Returns:
        The finished store.

    Raises:
        FileNotFoundError: if a source matches no file.
        FileExistsError: if something else is at `path`.
        ValueError: naming variable, date or file, if the recipe and the files do not match.
    """
    reader = RecipeReader(recipe)
    writer = StoreWriter(path, reader.metadata, recipe.dates_per_chunk)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("dates"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    total = len(reader.dates)
    blocks = writer.remaining()
    with Progress(*columns, disable=not show_progress) as progress:
        task = progress.add_task("Writing", total=total, completed=blocks[0].start if blocks else total)
        for block in blocks:
            writer.write(block, reader.read(block))
            progress.update(task, completed=block.stop)
    return writer.close()


class RecipeReader:
    """The fields of a recipe's store, read block by block.

    Attributes:
        dates: (time,) datetime64[s] of the store.
        metadata: everything in the store but its fields.
    """

    def __init__(self, recipe: Recipe) -> None:
        wanted: list[VariableRecipe | ConstantRecipe] = [
            *recipe.variables.values(),
            *recipe.constants.values(),
        ]
        coordinates = recipe.coordinates.model_dump(exclude_none=True)
        sources = Sources(
            recipe.source,
            {spec.variable for spec in wanted},
            recipe.storage_options,
            coordinates,
            recipe.select,
        )
        self._grid = sources.grid
        fields = {name: sources.field(v.variable, v.level) for name, v in recipe.variables.items()}
        constants = {name: sources.field(v.variable, v.level) for name, v in recipe.constants.items()}
        undated = [name for name, field in fields.items() if not len(field.dates)]
        if undated:
            raise ValueError(
                f"There is no time in {fields[undated[0]].file}: none of its coordinates holds dates. List "
                f"{', '.join(undated)} under constants, if they are the same at all dates."
            )
        missing = np.array([np.datetime64(date, "s") for date in recipe.dates.missing], "datetime64[s]")
        self.dates = _dates(recipe, fields, missing)
        if not all(field.leap_days for field in fields.values()):
            leap_days = np.char.find(self.dates.astype(str), "-02-29") >= 0
            missing = np.union1d(missing, self.dates[leap_days])
        self._fields = [_Located.find(name, field, self.dates, missing) for name, field in fields.items()]
        self._forcings = recipe.forcings
        self._constants = [_constant(field) for field in constants.values()]
        self.metadata = StoreMetadata(
            variables=_variables(recipe, fields, constants),
            dates=self.dates,
            latitudes=sources.grid.latitudes,
            longitudes=sources.grid.longitudes,
            field_shape=sources.grid.shape,
            resolution=sources.grid.resolution,
            statistics_window=(recipe.statistics.start, recipe.statistics.end),
            tendency_leads=recipe.statistics.tendencies,
            missing_dates=missing[np.isin(missing, self.dates)],
            attributes={
                "description": recipe.description,
                "licence": recipe.licence,
                "attribution": recipe.attribution,
                "recipe": recipe.model_dump(mode="json", exclude_defaults=True, exclude={"storage_options"}),
                "sources": _describe(sources.files),
            },
        )

    def read(self, block: slice) -> np.ndarray:
        """The fields of some dates of the store.

        Args:
            block: slice of `dates`.

        Returns:
            (time, variable, cell) float32; NaN where a field has no such date.

        Raises:
            ValueError: naming variable, file and dates that cannot be read.
        """
        dates = self.dates[block]
        shape = (len(dates), len(self.metadata.variables), len(self._grid.latitudes))
        values = np.full(shape, np.nan, np.float32)
        try:
            fields = dask.compute(*(located.at(block) for located in self._fields))
        except Exception as error:
            files = sorted({located.field.file for located in self._fields})
            first, last = show_date(dates[0]), show_date(dates[-1])
            raise ValueError(
                f"Reading {first} to {last} failed: {type(error).__name__}: {error}. "
                f"Is a file cut short? The files are {', '.join(files)} and those that continue them."
            ) from error
        for column, (located, field) in enumerate(zip(self._fields, fields, strict=True)):
            values[located.positions[block] >= 0, column] = field
        for column, constant in enumerate(self._constants, len(self._fields)):
            values[:, column] = constant
        for column, name in enumerate(self._forcings, len(self._fields) + len(self._constants)):
            values[:, column] = compute_forcing(name, dates, self._grid.latitudes, self._grid.longitudes)
        return values


@dataclass(frozen=True)
class _Located:
    """A field and the position of each date of the store in it (-1: absent)."""

    field: Field
    positions: np.ndarray

    @classmethod
    def find(cls, name: str, field: Field, dates: np.ndarray, missing: np.ndarray) -> _Located:
        gaps = dates[~np.isin(dates, field.dates) & ~np.isin(dates, missing)]
        if len(gaps):
            some = ", ".join(show_date(date) for date in gaps[:5])
            raise ValueError(
                f"{name} ({field.name} in {field.file} and the files that continue it) has no data for "
                f"{len(gaps)} of the {len(dates)} dates: {some}{', ...' if len(gaps) > 5 else ''}. "
                "Where the source has no data, declare the dates missing in the recipe, "
                f"dates: {{missing: [{show_date(gaps[0])}]}}."
            )
        positions = np.searchsorted(field.dates, dates)
        return cls(field, np.where(np.isin(dates, field.dates), positions, -1))

    def at(self, block: slice) -> da.Array:
        positions = self.positions[block]
        return self.field.data[positions[positions >= 0]]


def _dates(recipe: Recipe, fields: Mapping[str, Field], missing: np.ndarray) -> np.ndarray:
    """The dates of the store: evenly spaced over those of the files and the ones declared missing."""
    known = np.unique(np.concatenate([missing, *(field.dates for field in fields.values())]))
    first, last = period(recipe.dates.start or show_date(known[0]), recipe.dates.end or show_date(known[-1]))
    inside = known[(known >= first) & (known <= last)]
    if len(inside) < 2:
        raise ValueError(
            f"Fewer than two dates lie in {show_date(first)} to {show_date(last)}; the files hold "
            f"{show_date(known[0])} to {show_date(known[-1])}."
        )
    steps, counts = np.unique(np.diff(inside), return_counts=True)
    frequency = lead_timedelta(recipe.dates.frequency or steps[counts.argmax()])
    dates = np.arange(inside[0], inside[-1] + np.timedelta64(1, "s"), frequency)
    stray = inside[~np.isin(inside, dates)]
    if len(stray) and recipe.dates.frequency is None:
        raise ValueError(
            f"The dates are uneven: {show_date(stray[0])} is not a multiple of {lead_name(frequency)} after "
            f"{show_date(dates[0])}. Say which are wanted, for example dates: {{frequency: 1d}}."
        )
    if inside[0] - first >= frequency or last - inside[-1] >= frequency:
        raise ValueError(
            f"The recipe asks for {recipe.dates.start} to {recipe.dates.end}, but the files hold "
            f"{show_date(known[0])} to {show_date(known[-1])}."
        )
    return dates


def _constant(field: Field) -> np.ndarray:
    """The field, at its first date if it has several."""
    return np.asarray(field.data[0] if len(field.dates) else field.data)


def _variables(recipe: Recipe, fields: Mapping[str, Field], constants: Mapping[str, Field]) -> list[Variable]:
    prognostic = [
        Variable(
            name,
            spec.units if spec.units is not None else fields[name].units,
            spec.role,
            fields[name].long_name,
            allow_nan=spec.allow_nan,
        )
        for name, spec in recipe.variables.items()
    ]
    constant = [
        Variable(
            name,
            spec.units if spec.units is not None else constants[name].units,
            "forcing",
            constants[name].long_name,
            constant_in_time=True,
            allow_nan=spec.allow_nan,
        )
        for name, spec in recipe.constants.items()
    ]
    computed = [
        Variable(name, "1", "forcing", constant_in_time=name in CONSTANT_FORCINGS, computed_forcing=True)
        for name in recipe.forcings
    ]
    return [*prognostic, *constant, *computed]


def _describe(files: Sequence[str]) -> dict[str, str | int]:
    """What the store was made from: number, first and last name, and size of the local files."""
    size = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
    return {"files": len(files), "first": files[0], "last": files[-1], "bytes": size}
