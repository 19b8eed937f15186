"""Creating a store from a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike

import dask
import numpy as np
import xarray as xr
from rich.progress import MofNCompleteColumn, Progress

from diffusion_lab.making.metadata import StoreMetadata, Variable, computed_forcings
from diffusion_lab.making.recipes import Recipe, VariableRecipe
from diffusion_lab.making.sources import Sources
from diffusion_lab.making.writer import StoreWriter
from diffusion_lab.stores.dates import lead_name, lead_timedelta, period, show_date
from diffusion_lab.stores.forcings import compute_forcing
from diffusion_lab.stores.store import Store


def create_from_recipe(recipe: Recipe, path: str | PathLike[str], show_progress: bool = False) -> Store:
    """Create the store that a recipe describes, or finish one that was interrupted, and open it.

    Args:
        recipe: the recipe.
        path: local path or fsspec URL of the store.
        show_progress: whether to draw a progress bar.

    Raises:
        FileNotFoundError: if a source matches no file.
        FileExistsError: if something else is at `path`.
        ValueError: naming variable, date or file, if the recipe and the files do not match.
    """
    metadata, fields = _open(recipe)
    writer = StoreWriter(path, metadata, recipe.dates_per_chunk)
    total, blocks = len(metadata.dates), writer.remaining()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, disable=not show_progress) as progress:
        task = progress.add_task("Dates", total=total, completed=blocks[0].start if blocks else total)
        for block in blocks:
            writer.write(block, _read(metadata, fields, metadata.dates[block]))
            progress.update(task, completed=block.stop)
    return writer.close()


def _open(recipe: Recipe) -> tuple[StoreMetadata, dict[str, xr.DataArray]]:
    """The metadata of the store, and its fields by name, lazy, except those that are computed."""
    specs = recipe.variables | recipe.constants
    sources = Sources(
        recipe.source,
        {spec.variable for spec in specs.values()},
        recipe.storage_options,
        recipe.coordinates.model_dump(exclude_none=True),
        recipe.select,
    )
    fields = {name: sources.field(spec.variable, spec.level) for name, spec in specs.items()}
    for name in recipe.constants:
        fields[name] = fields[name].isel(time=0, missing_dims="ignore", drop=True).load()
    dated = {name: fields[name] for name in recipe.variables}
    if undated := [name for name, field in dated.items() if "time" not in field.dims]:
        raise ValueError(
            f"There is no time in {fields[undated[0]].attrs['file']}: none of its coordinates holds dates. "
            f"List {', '.join(undated)} under constants, if they are the same at all dates."
        )
    missing = np.array(recipe.dates.missing, "datetime64[s]")
    dates = _dates(recipe, dated, missing)
    if any(field["time"].attrs.get("calendar") == "noleap" for field in dated.values()):
        missing = np.union1d(missing, dates[np.char.find(dates.astype(str), "-02-29") >= 0])
    for name, field in dated.items():
        _check_gaps(name, field, dates[~np.isin(dates, missing)])
    metadata = StoreMetadata(
        variables=_variables(recipe, fields),
        dates=dates,
        latitudes=sources.grid.latitudes,
        longitudes=sources.grid.longitudes,
        field_shape=sources.grid.shape,
        resolution=sources.grid.resolution,
        statistics_window=(recipe.statistics.start, recipe.statistics.end),
        tendency_leads=recipe.statistics.tendencies,
        missing_dates=missing[np.isin(missing, dates)],
        attributes={
            "description": recipe.description,
            "licence": recipe.licence,
            "attribution": recipe.attribution,
            "recipe": recipe.model_dump(mode="json", exclude_defaults=True, exclude={"storage_options"}),
            "sources": _describe(sources.files),
        },
    )
    return metadata, fields


def _read(metadata: StoreMetadata, fields: Mapping[str, xr.DataArray], dates: np.ndarray) -> np.ndarray:
    """The fields (time, variable, cell) at some dates; NaN where a field lacks a date."""
    wanted = {name: f.reindex(time=dates) if "time" in f.dims else f for name, f in fields.items()}
    try:
        (columns,) = dask.compute(wanted)
    except Exception as error:
        files = sorted({field.attrs["file"] for field in fields.values()})
        raise ValueError(
            f"Cannot read {show_date(dates[0])} to {show_date(dates[-1])}: "
            f"{type(error).__name__}: {error}. Is a file cut short? The files are {', '.join(files)} "
            "and those that continue them in time."
        ) from error
    places = metadata.latitudes, metadata.longitudes
    columns |= {
        v.name: compute_forcing(v.name, dates, *places) for v in metadata.variables if v.computed_forcing
    }
    shape = (len(dates), len(metadata.latitudes))
    return np.stack([np.broadcast_to(columns[v.name], shape) for v in metadata.variables], axis=1)


def _check_gaps(name: str, field: xr.DataArray, dates: np.ndarray) -> None:
    if gaps := [show_date(date) for date in dates[~np.isin(dates, field["time"])]]:
        raise ValueError(
            f"{name} ({field.name} in {field.attrs['file']} and the files that continue it) has no data for "
            f"{len(gaps)} of the {len(dates)} dates: {', '.join(gaps[:5])}{', ...' if gaps[5:] else ''}. If "
            f"they do not exist, declare them missing in the recipe, dates: {{missing: [{gaps[0]}]}}."
        )


def _dates(recipe: Recipe, fields: Mapping[str, xr.DataArray], missing: np.ndarray) -> np.ndarray:
    """The dates of the store: evenly spaced over those of the files and those declared missing."""
    known = np.unique(np.concatenate([missing, *(field["time"].values for field in fields.values())]))
    held = f"the files hold {show_date(known[0])} to {show_date(known[-1])}"
    first, last = period(recipe.dates.start or show_date(known[0]), recipe.dates.end or show_date(known[-1]))
    inside = known[(known >= first) & (known <= last)]
    if len(inside) < 2:
        raise ValueError(f"There are not two dates from {show_date(first)} to {show_date(last)}; {held}.")
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
        raise ValueError(f"The recipe asks for {recipe.dates.start} to {recipe.dates.end}, but {held}.")
    return dates


def _variables(recipe: Recipe, fields: Mapping[str, xr.DataArray]) -> list[Variable]:
    stored = [
        Variable(
            name,
            fields[name].attrs["units"] if spec.units is None else spec.units,
            spec.role if isinstance(spec, VariableRecipe) else "forcing",
            fields[name].attrs["long_name"],
            constant_in_time=name in recipe.constants,
            allow_nan=spec.allow_nan,
        )
        for name, spec in (recipe.variables | recipe.constants).items()
    ]
    return stored + computed_forcings(recipe.forcings)


def _describe(files: Sequence[str]) -> dict[str, str | int]:
    """The number of source files, the first and the last, and the size of the local ones."""
    size = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
    return {"files": len(files), "first": files[0], "last": files[-1], "bytes": size}
