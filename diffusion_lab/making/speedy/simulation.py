"""Simulate years of weather with the SPEEDY general-circulation model (jcm, T31, 8 sigma levels).

SPEEDY (Molteni 2003, doi:10.1007/s00382-002-0268-2) is a primitive-equation model with simplified physics,
real continents, mountains, sea-surface temperatures and seasons. A simulated day costs about a second of one
core, so a laptop can make ten years of training data.

`simulate` writes the instantaneous T31 fields on sigma levels in chunks of ten days; if killed, it resumes
bit for bit. `pressure_level_dataset` converts the chunks to pressure levels on the 64 x 32 Gaussian grid, and
can be improved without simulating again.

After the vertical interpolation, fields are truncated from the model's 96 x 48 grid to T21 (vorticity and
divergence for the wind). 64 x 32 is the quadratic grid of T21: nothing is aliased, nothing that the grid can
hold is smoothed, and the result is exact on both grids.

Needs the extra `speedy` (`pip install "diffusion-lab[speedy]"`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from rich.progress import Progress, TimeElapsedColumn

from diffusion_lab.graphs.sphere import gaussian_latitudes
from diffusion_lab.making.metadata import StoreMetadata, Variable, computed_forcings
from diffusion_lab.making.speedy import pressure_levels as levels
from diffusion_lab.making.speedy.gaussian_grid import SpectralTruncation, coarsened
from diffusion_lab.making.speedy.rounding import power_of_two, round_to
from diffusion_lab.making.writer import create_store
from diffusion_lab.stores.dates import period
from diffusion_lab.stores.forcings import COMPUTED_FORCINGS, compute_forcing
from diffusion_lab.stores.store import Role, Store

if TYPE_CHECKING:
    from jcm.forcing import ForcingData
    from jcm.model import Model
    from jcm.predictions import ModelPredictions

REFERENCE_PRESSURE = 1e5  # Pa, by which jcm normalises surface pressure
TIME_STEP = 1800.0  # s
CHUNK_DAYS = 10
SAVE_INTERVAL = np.timedelta64(12, "h")
# The air over Antarctica takes four months to reach equilibrium, the rest of the troposphere two.
SPIN_UP = np.timedelta64(151, "D")
# The two levels above sigma = 0.14 drift for years, as SPEEDY has no stratospheric physics; they are dropped.
TOP_LEVELS = 2
PROGNOSTIC = ("z500", "t850", "u850", "v850", "msl")
SURFACE = ("orography", "lsm")
# No insolation: it follows from local time, day of the year and place, and does not compress.
FORCINGS = tuple(name for name in COMPUTED_FORCINGS if name != "insolation")
FORCING_STEP = 2.0**-14
ATTRIBUTES = {
    "z500": {"long_name": "geopotential at 500 hPa", "units": "m2 s-2"},
    "t850": {"long_name": "temperature at 850 hPa", "units": "K"},
    "u850": {"long_name": "eastward wind at 850 hPa", "units": "m s-1"},
    "v850": {"long_name": "northward wind at 850 hPa", "units": "m s-1"},
    "q700": {"long_name": "specific humidity at 700 hPa", "units": "kg kg-1"},
    "msl": {"long_name": "mean sea level pressure", "units": "Pa"},
    "orography": {"long_name": "height of the model's ground", "units": "m"},
    "lsm": {"long_name": "land fraction", "units": "1"},
}


def build_model(start: np.datetime64) -> tuple[Model, ForcingData]:
    """Return SPEEDY T31 L8 at rest on `start`, with real orography, and its climatological surface forcing.

    Three settings differ from jcm's defaults:

    - The orography is smoothed by heat diffusion on the sphere, exp(-K n(n+1)) with 0.2 left at n = 31. Sharp
      truncation leaves Gibbs ripples down to -276 m over the ocean around the Andes and Tibet, which disturb
      every field near the ground; diffusion leaves none below -32 m, but lowers Tibet from 4630 m to 4040 m.
    - The air at rest is hydrostatic over that orography with 1013.25 hPa at sea level. jcm starts with 1000
      hPa on the mountains too, which leaves the global mean 14 hPa too high throughout.
    - Hyperdiffusion is that of the original SPEEDY (Molteni 2003: del^8, 2.4 h at n = 31). jcm damps
      divergence by del^2, which slows the growth of synoptic waves.
    """
    from jcm.diffusion import DiffusionFilter
    from jcm.dycore.dinosaur.dycore import DinosaurDycore
    from jcm.forcing import ForcingData
    from jcm.model import Model
    from jcm.physics.speedy.speedy_coords import get_speedy_coords
    from jcm.physics.speedy.speedy_terms import speedy_physics
    from jcm.terrain import TerrainData

    coords = get_speedy_coords(layers=8, spectral_truncation=31)
    grid = coords.horizontal
    climatology = files("jcm") / "data/bc/t30/clim"
    terrain = TerrainData.from_file(str(climatology / "terrain.nc"), coords)
    total_wavenumber = np.asarray(grid.modal_axes[1], dtype=np.float64)
    decay = np.log(5.0) * total_wavenumber * (total_wavenumber + 1) / (31 * 32)
    height = grid.to_nodal(grid.to_modal(terrain.orog) * np.exp(-decay))
    terrain = terrain.copy(orog=height, phis0=levels.GRAVITY * height)
    # The packaged forcing is one year of monthly means, repeated every year.
    forcing = ForcingData.from_file(str(climatology / "forcing.nc"), coords, align_mode="wrap_year")
    physics = speedy_physics()
    tau = 2.4 * 3600.0
    diffusion = DiffusionFilter(
        vor_q_timescale=tau, vor_q_order=4, temp_timescale=tau, temp_order=4, div_timescale=tau, div_order=4
    )
    tracers = {tracer.name: tracer for tracer in physics.required_tracers()}
    dycore = DinosaurDycore(
        coords=coords, terrain=terrain, dt_seconds=TIME_STEP, tracer_specs=tracers, diffusion=diffusion
    )
    model = Model(dycore, physics=physics, start_time=str(start))
    state, _ = model.bootstrap_state()
    # 288 K everywhere is the rest state of jcm.
    log_pressure = np.log(1013.25e2 / REFERENCE_PRESSURE) - terrain.phis0 / (levels.GAS_CONSTANT * 288.0)
    model.bootstrap_state(state.replace(log_surface_pressure=grid.to_modal(log_pressure)[None]))
    return model, forcing


def simulate(workdir: str | Path, start: str | np.datetime64, end: str | np.datetime64) -> None:
    """Simulate from `start` to `end`, after five months of spin-up, and write chunks under `workdir`.

    Each chunk `sigma_<first date>.nc` holds ten days of instantaneous 00 and 12 UTC fields on the T31
    Gaussian grid (96 x 48) and the six sigma levels below 0.14; the last may end after `end`. A killed
    simulation resumes from `checkpoint.msgpack`, bit for bit. A progress bar counts the days.
    """
    from jcm.checkpoint import load_checkpoint, save_checkpoint

    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    first, last = (np.datetime64(date).astype("datetime64[h]") for date in (start, end))
    model, forcing = build_model(first - SPIN_UP)
    checkpoint = workdir / "checkpoint.msgpack"
    elapsed = load_checkpoint(model, checkpoint) if checkpoint.exists() else 0.0
    now = first - SPIN_UP + np.timedelta64(round(elapsed * 24), "h")
    write_atomically(constants(model), workdir / "constants.nc")
    begin, day = first - SPIN_UP, np.timedelta64(24, "h")
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress:
        task = progress.add_task("simulated days", total=(last - begin) / day, completed=(now - begin) / day)
        while now < last:
            predictions = model.resume(forcing=forcing, save_interval=0.5, total_time=float(CHUNK_DAYS))
            chunk = sigma_dataset(predictions, model)
            now = chunk.time.values[-1].astype("datetime64[h]")
            if not np.isfinite(chunk.temperature.values).all():
                raise FloatingPointError(f"SPEEDY is unstable: not all temperatures before {now} are finite.")
            if now >= first:
                write_atomically(chunk, workdir / f"sigma_{str(chunk.time.values[0])[:10]}.nc")
            save_checkpoint(model, checkpoint)
            progress.update(task, completed=(now - begin) / day)


def constants(model: Model) -> xr.Dataset:
    """Return the surface geopotential (m2 s-2) of the dynamics and the land fraction on the T31 grid."""
    terrain = model.dycore.terrain
    fields = {"surface_geopotential": terrain.phis0, "land_fraction": terrain.fmask}
    data = {name: (("longitude", "latitude"), np.asarray(field)) for name, field in fields.items()}
    return xr.Dataset(data, coords=_horizontal(model)).transpose("latitude", "longitude")


def sigma_dataset(predictions: ModelPredictions, model: Model) -> xr.Dataset:
    """Return a simulated chunk as (time, level, latitude, longitude) fields, SI units, levels downwards."""
    state = predictions.dynamics
    dims = ("time", "level", "longitude", "latitude")
    names = ("temperature", "u_wind", "v_wind", "specific_humidity", "geopotential")
    data = {name: (dims, np.asarray(getattr(state, name))[:, TOP_LEVELS:]) for name in names}
    surface_pressure = REFERENCE_PRESSURE * np.asarray(state.normalized_surface_pressure)
    sigma = np.asarray(model.coords.vertical.centers)[TOP_LEVELS:]
    times = predictions.time_labels().astype("datetime64[s]").astype("datetime64[ns]")
    coords = {"time": times, "sigma": ("level", sigma), **_horizontal(model)}
    dataset = xr.Dataset(data, coords).rename(u_wind="u", v_wind="v")
    dataset["surface_pressure"] = (("time", *dims[2:]), surface_pressure)
    return dataset.transpose("time", "level", "latitude", "longitude")


def pressure_level_dataset(workdir: str | Path) -> xr.Dataset:
    """Return the simulated fields (time, latitude, longitude) on the 64 x 32 Gaussian grid, opened lazily.

    These are the variables of `ATTRIBUTES`, in float32; orography and lsm have no time. Each chunk is
    converted once and kept beside its source as `fields_<first date>.nc`.

    Raises:
        FileNotFoundError: nothing has been simulated in `workdir`.
    """
    workdir = Path(workdir)
    chunks = sorted(workdir.glob("sigma_*.nc"))
    if not chunks:
        raise FileNotFoundError(f"No sigma_*.nc in {workdir}: run simulate(workdir, start, end) first.")
    with xr.open_dataset(workdir / "constants.nc") as source:
        surface = source.load()
    truncation = SpectralTruncation(surface.latitude.values, gaussian_latitudes(32), 64, 21)
    targets = [chunk.with_name(chunk.name.replace("sigma", "fields")) for chunk in chunks]
    for chunk, target in zip(chunks, targets, strict=True):
        if not target.exists():
            with xr.open_dataset(chunk) as sigma:
                write_atomically(chunk_fields(sigma.load(), surface, truncation), target)
    dataset = xr.open_mfdataset(
        targets, combine="nested", concat_dim="time", data_vars="minimal", coords="minimal"
    )
    return dataset.merge(constant_fields(surface))


def chunk_fields(chunk: xr.Dataset, surface: xr.Dataset, truncation: SpectralTruncation) -> xr.Dataset:
    """Return the pressure-level fields of one chunk of `simulate`, truncated to the 64 x 32 grid."""
    chunk = chunk.transpose("level", "time", "latitude", "longitude").astype(np.float64)
    names = ("temperature", "u", "v", "specific_humidity", "geopotential", "surface_pressure")
    t, u, v, q, z, ps = (chunk[name].values for name in names)
    sigma = chunk.sigma.values.astype(np.float64)
    ground = np.broadcast_to(surface.surface_geopotential.values.astype(np.float64), ps.shape)
    u850, v850 = truncation.wind(*(levels.interpolate(wind, sigma, ps, 85000.0) for wind in (u, v)))
    fields = {
        "z500": truncation.scalar(levels.geopotential(z, t, sigma, ps, 50000.0)),
        "t850": truncation.scalar(levels.temperature(t, sigma, ps, ground, 85000.0)),
        "u850": u850,
        "v850": v850,
        # The truncated series of a field that reaches zero is slightly negative there.
        "q700": np.maximum(truncation.scalar(levels.interpolate(q, sigma, ps, 70000.0)), 0.0),
        "msl": truncation.scalar(levels.mean_sea_level_pressure(t, sigma, ps, ground)),
    }
    return _labelled(fields, time=chunk.time.values)


def constant_fields(surface: xr.Dataset) -> xr.Dataset:
    """Return orography (m) and land fraction on the 64 x 32 grid, as means over its cells."""
    north_first = surface.sortby("latitude", ascending=False)
    fields = {
        "orography": coarsened(north_first.surface_geopotential.values / levels.GRAVITY, 32, 64),
        "lsm": coarsened(north_first.land_fraction.values, 32, 64),
    }
    return _labelled(fields)


def _labelled(fields: dict[str, np.ndarray], time: np.ndarray | None = None) -> xr.Dataset:
    coords = {
        "latitude": ("latitude", gaussian_latitudes(32), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(64) * 360.0 / 64, {"units": "degrees_east"}),
    }
    if time is not None:
        coords = {"time": ("time", time, {})} | coords
    dims = list(coords)
    data = {name: (dims, field.astype(np.float32), ATTRIBUTES[name]) for name, field in fields.items()}
    return xr.Dataset(data, coords=coords)


def create_speedy_store(
    out: str | Path,
    start: np.datetime64 | str = "2020-04-01",
    end: np.datetime64 | str = "2025",
    workdir: str | Path | None = None,
    statistics_end: np.datetime64 | str | None = None,
    variables: Sequence[str] = PROGNOSTIC,
) -> Store:
    """Simulate, convert and write a 12-hourly store. Finished parts are not repeated.

    So that the store compresses well, the fields are rounded to multiples of a power of two, with an error of
    less than 1 % of the standard deviation of the 12 h tendency.

    Args:
        out: path of the store.
        start: first date. The weather depends on it alone.
        end: last date; `2025` includes all of that year.
        workdir: folder for the simulated chunks, 1.2 MB a day; by default beside the store.
        statistics_end: last date of the statistics. By default the last 365 days, if there are more, are
            left out as a test year.
        variables: the prognostic variables, from z500, t850, u850, v850, q700 and msl.

    Raises:
        ImportError: SPEEDY must be run and jcm is not installed.
        KeyError: a variable is not one of the six.
        ValueError: `workdir` holds a simulation that does not cover the dates.
    """
    known = [name for name in ATTRIBUTES if name not in SURFACE]
    if unknown := ", ".join(name for name in variables if name not in known):
        raise KeyError(f"SPEEDY has no prognostic variable {unknown}; choose from {', '.join(known)}.")
    workdir = Path(f"{out}.speedy") if workdir is None else workdir
    first, last = period(start, end)
    if statistics_end is None:
        test_year = np.timedelta64(365, "D")
        statistics_end = last - test_year if last - first > test_year else end
    last = first + (last - first) // SAVE_INTERVAL * SAVE_INTERVAL
    if simulated_until(workdir) < last:
        simulate(workdir, first, last)
    fields = pressure_level_dataset(workdir).sel(time=slice(first, last))
    fields = fields.stack(cell=("latitude", "longitude"), create_index=False)
    dates = fields.time.values.astype("datetime64[s]")
    if len(dates) == 0 or dates[0] != first or dates[-1] != last:
        raise ValueError(f"{workdir} holds other dates than {first} to {last}; choose another folder.")
    training = fields.sel(time=slice(*period(start, statistics_end)))
    steps = {name: power_of_two(0.01 * float(training[name].diff("time").std())) for name in variables}
    stored = []
    for name in (*variables, *SURFACE):
        units, long_name, fixed = ATTRIBUTES[name]["units"], ATTRIBUTES[name]["long_name"], name in SURFACE
        role: Role = "forcing" if fixed else "prognostic"
        stored.append(Variable(name, units, role, long_name, constant_in_time=fixed))
    metadata = StoreMetadata(
        variables=stored + computed_forcings(FORCINGS),
        dates=dates,
        latitudes=fields.latitude.values,
        longitudes=fields.longitude.values,
        field_shape=(32, 64),
        resolution="N16",
        statistics_window=(start, statistics_end),
        attributes={
            "description": "SPEEDY general-circulation model (jcm 3, T31 L8) over climatological oceans",
            "licence": "Apache-2.0",
            "rounded_to_multiples_of": steps | dict.fromkeys((*SURFACE, *FORCINGS), FORCING_STEP),
        },
    )
    return create_store(out, metadata, lambda block: _stored_fields(fields.isel(time=block).load(), steps))


def _stored_fields(fields: xr.Dataset, steps: dict[str, float]) -> np.ndarray:
    """(time, variable, cell) in the order of the store, the prognostic variables rounded to their steps."""
    dates, latitudes, longitudes = (fields[name].values for name in ("time", "latitude", "longitude"))
    prognostic = [round_to(fields[name].values, step) for name, step in steps.items()]
    forcings = [fields[name].values for name in SURFACE]
    forcings += [compute_forcing(name, dates, latitudes, longitudes) for name in FORCINGS]
    rounded = [round_to(field, FORCING_STEP) for field in forcings]
    return np.stack(np.broadcast_arrays(*prognostic, *rounded), axis=1)


def simulated_until(workdir: str | Path) -> np.datetime64:
    """Return the last date of the simulation in `workdir`, 0001-01-01 if there is none."""
    chunks = sorted(Path(workdir).glob("sigma_*.nc"))
    if not chunks:
        return np.datetime64("0001-01-01", "s")
    with xr.open_dataset(chunks[-1]) as chunk:
        return chunk.time.values[-1].astype("datetime64[s]")


def write_atomically(dataset: xr.Dataset, path: Path) -> None:
    """Write a netCDF file that is complete or absent, even if the process is killed."""
    partial = path.with_suffix(".partial")
    dataset.to_netcdf(partial)
    os.replace(partial, path)


def _horizontal(model: Model) -> dict[str, np.ndarray]:
    grid = model.coords.horizontal
    return {"latitude": np.rad2deg(grid.latitudes), "longitude": np.rad2deg(grid.longitudes)}
