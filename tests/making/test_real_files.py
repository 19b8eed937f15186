"""Files as they are met in practice: climate-model calendars, ensembles, forecasts, climatologies, GRIB."""

import warnings

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr

from diffusion_lab.making.create import create_from_recipe
from diffusion_lab.making.recipes import parse_recipe
from diffusion_lab.stores.inspect import describe_store

LATITUDES, LONGITUDES = np.array([60.0, 20.0, -20.0, -60.0]), np.arange(0.0, 360.0, 60.0)
PLACE = ("latitude", "longitude")


def fields(seed=0, **sizes):
    """A variable t over the sizes and the grid; a coordinate counts each size."""
    shape = (*sizes.values(), len(LATITUDES), len(LONGITUDES))
    values = np.random.default_rng(seed).normal(280, 5, shape).astype(np.float32)
    coordinates = {name: np.arange(size) for name, size in sizes.items()}
    return xr.Dataset(
        {"t": ((*sizes, *PLACE), values, {"units": "K"})},
        coordinates | {"latitude": LATITUDES, "longitude": LONGITUDES},
    )


def days(count, start="2001-01-01"):
    return np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(1, "D")


def create(tmp_path, source="a.nc", variable="t", **change):
    base = {
        "description": "d",
        "source": str(tmp_path / source),
        "statistics": {"start": "1900", "end": "2100"},
        "variables": {"t": variable},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return create_from_recipe(parse_recipe(base | change), tmp_path / "s.zarr")


def flat(array):
    return array.values.reshape(-1, len(LATITUDES) * len(LONGITUDES))


def read(store):
    return store.read(slice(None))[:, 0, 0]


def train_two_steps(store, tmp_path):
    """Train on the store: loading, normalisation and the loss work, and two steps are done."""
    from diffusion_lab.config import compose, validate
    from diffusion_lab.training.build import build
    from diffusion_lab.training.fit import fit

    tiny = {"num_channels": 16, "num_layers": 1, "num_heads": 2, "mlp_ratio": 2, "trainable_size": 3}
    first, second, last = (str(store.dates[i])[:13] for i in (0, -4, -1))
    settings = {f"model.{key}": value for key, value in tiny.items()} | {
        "graph.refinement": 1,
        "system.input.dataset": store.path,
        "system.accelerator": "cpu",
        "system.output": tmp_path / "run",
        "data.timestep": "1d",
        "dataloader.training.start": first,
        "dataloader.training.end": second,
        "dataloader.validation.start": second,
        "dataloader.validation.end": last,
        "dataloader.test.start": second,
        "dataloader.test.end": last,
        "dataloader.batch_size": 1,
        "diagnostics.progress_bar": "false",
        "diagnostics.tensorboard": "false",
        "diagnostics.validation.starts": 1,
        "diagnostics.validation.num_steps": 2,
        "training.max_steps": 2,
        "training.warmup_steps": 1,
        "diagnostics.log_every_n_steps": 1,
    }
    run = build(validate(compose([f"{key}={value}" for key, value in settings.items()])))
    fit(run)
    assert run.task.trainer.global_step == 2
    metrics = run.task.trainer.logged_metrics
    assert metrics and all(np.isfinite(float(value)) for value in metrics.values())


def noleap_years():
    """2003 and 2004, which has 29 February in other calendars."""
    return fields(time=730).assign_coords(time=xr.date_range("2003-01-01", periods=730, calendar="noleap"))


@pytest.mark.parametrize("start", ["2003", "0850"])
def test_a_calendar_without_leap_days(tmp_path, start):
    source = noleap_years()
    source = source.assign_coords(time=xr.date_range(f"{start}-01-01", periods=730, calendar="noleap"))
    source.to_netcdf(tmp_path / "a.nc")
    statistics = {"start": f"{start}-01-01", "end": f"{int(start) + 1:04d}-12-31"}
    store = create(tmp_path, statistics=statistics)
    leap = {"2003": ["2004-02-29T00:00:00"], "0850": []}[start]
    assert [str(date) for date in store.dates[store.missing]] == leap
    assert (str(store.dates[0])[:4], len(store.dates)) == (start, 730 + len(leap))
    np.testing.assert_array_equal(read(store)[~store.missing], flat(source["t"]))


@pytest.mark.parametrize("calendar", ["360_day", "all_leap", "julian"])
def test_other_calendars_are_refused_by_name(tmp_path, calendar):
    dates = xr.date_range("2003-01-01", periods=60, calendar=calendar, use_cftime=True)
    fields(time=60).assign_coords(time=dates).to_netcdf(tmp_path / "a.nc")
    name = {"all_leap": "(all_leap|366_day)"}.get(calendar, calendar)
    with pytest.raises(ValueError, match=rf"a\.nc: time is in the calendar {name}, .*convert_calendar"):
        create(tmp_path)


@pytest.mark.parametrize("member", ["number", "member", "realization"])
def test_a_member_of_an_ensemble_is_selected(tmp_path, member):
    source = fields(time=10, **{member: 3}, level=2).assign_coords(time=days(10), level=[500, 850])
    source.to_netcdf(tmp_path / "a.nc")
    level = {"variable": "t", "level": 850}
    with pytest.raises(
        ValueError, match=rf"dimension {member} of size 3 \(0, 1, 2\).*select: {{{member}: 0}}"
    ):
        create(tmp_path, variable=level)
    with pytest.raises(ValueError, match=rf"select: no file has .* {member} 7"):
        create(tmp_path, variable=level, select={member: 7})
    with pytest.raises(ValueError, match=r"select: .* numbr 1"):
        create(tmp_path, variable=level, select={member: 1, "numbr": 1})
    store = create(tmp_path, variable=level, select={member: 2})
    np.testing.assert_array_equal(read(store), flat(source["t"].isel({member: 2}).sel(level=850)))
    with pytest.raises(ValueError, match="t has no level 925; it has level 500, 850"):
        create(tmp_path, variable={"variable": "t", "level": 925}, select={member: 2})


def test_one_file_per_member(tmp_path):
    source = fields(number=3, time=5).assign_coords(time=days(5))
    for member in range(3):
        source.isel(number=member).to_netcdf(tmp_path / f"member{member}.nc")
    store = create(tmp_path, "*.nc", select={"number": 1})
    np.testing.assert_array_equal(read(store), flat(source["t"].isel(number=1)))


def forecasts(starts, steps):
    hours = np.arange(steps) * np.timedelta64(6, "h").astype("timedelta64[ns]")
    source = fields(time=starts, step=steps).assign_coords(time=days(starts), step=hours)
    return source.assign_coords(valid_time=source["time"] + source["step"])


def test_a_lead_time_of_many_forecasts_is_selected(tmp_path):
    source = forecasts(8, 3)
    source.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(
        ValueError, match=r"t has the dimension step of size 3 \(0h, 6h, 12h\).*select: {step: 0h}"
    ):
        create(tmp_path)
    store = create(tmp_path, select={"step": "6h"})
    np.testing.assert_array_equal(store.dates, days(8) + np.timedelta64(6, "h"))
    np.testing.assert_array_equal(read(store), flat(source["t"].isel(step=1)))


def test_one_forecast_is_a_series_of_its_valid_times(tmp_path):
    source = forecasts(1, 8).isel(time=0)
    source.to_netcdf(tmp_path / "a.nc")
    store = create(tmp_path)
    np.testing.assert_array_equal(store.dates, days(1) + np.arange(8) * np.timedelta64(6, "h"))
    np.testing.assert_array_equal(read(store), flat(source["t"]))


def test_a_climatology_has_no_time(tmp_path):
    fields(month=12, level=2).assign_coords(level=[200, 500]).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"dimension month of size 12 .*has no time"):
        create(tmp_path, variable={"variable": "t", "level": 200})
    fields().to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"There is no time in .*a\.nc"):
        create(tmp_path)


def test_stations_are_cells(tmp_path):
    values = np.random.default_rng(0).normal(size=(9, 5))
    places = {"latitude": ("station", np.arange(5.0)), "longitude": ("station", np.arange(5.0))}
    xr.Dataset({"t": (("time", "station"), values)}, {"time": days(9)} | places).to_netcdf(tmp_path / "a.nc")
    store = create(tmp_path)
    grid = next(row for row in _cells(describe_store(store)) if "latitude 0" in row)
    assert grid.startswith("5 cells, latitude 0 to 4")


def _cells(description):
    return [str(cell) for cell in description.renderables[0].columns[1].cells]


def test_a_zarr_source_runs_no_code(tmp_path):
    source = fields(time=4).assign_coords(time=days(4))
    source.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    group.create_array("extra", data=days(2), filters=[numcodecs.Pickle()], compressors=None)
    with pytest.raises(ValueError, match=r"array 'extra' of the store .*a\.zarr' uses the codec 'pickle'"):
        create(tmp_path, "a.zarr")


def test_from_calendar_without_leap_days_to_training(tmp_path):
    noleap_years().isel(time=slice(410, 440)).to_netcdf(tmp_path / "a.nc")
    store = create(tmp_path)
    assert store.missing.sum() == 1
    train_two_steps(store, tmp_path)


def test_from_ensemble_to_training(tmp_path):
    source = fields(time=12, number=10).assign_coords(time=days(12))
    source.to_netcdf(tmp_path / "a.nc")
    train_two_steps(create(tmp_path, select={"number": 9}), tmp_path)


def write_grib(file, dates, members=(None,), steps=(0,), grid="regular_ll"):
    """Messages of t at 850 and 500 hPa; the values are those returned, (date, member, step, level, cell)."""
    eccodes = pytest.importorskip("eccodes")
    pytest.importorskip("cfgrib")
    values = np.random.default_rng(0).normal(280, 5, (len(dates), len(members), len(steps), 2, 24))
    with open(file, "wb") as out:
        for d, m, s, level in np.ndindex(*values.shape[:4]):
            sample = "sh_pl_grib2" if grid == "sh" else f"{grid}_pl_grib2"
            message = eccodes.codes_grib_new_from_samples(sample)
            keys = {"dataDate": int(str(dates[d])[:10].replace("-", "")), "dataTime": 0}
            if members[m] is not None:
                keys |= {"productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": len(members)}
                keys |= {"perturbationNumber": members[m]}
            keys |= {"stepRange": str(steps[s]), "shortName": "t", "level": (850, 500)[level]}
            if grid == "regular_ll":
                keys |= {
                    "Ni": 6,
                    "Nj": 4,
                    "iDirectionIncrementInDegrees": 60,
                    "jDirectionIncrementInDegrees": 40,
                }
                keys |= {"latitudeOfFirstGridPointInDegrees": 60, "latitudeOfLastGridPointInDegrees": -60}
                keys |= {"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 300}
            for key, value in keys.items():
                eccodes.codes_set(message, key, value)
            if grid == "regular_ll":
                eccodes.codes_set_values(message, values[d, m, s, level])
            eccodes.codes_write(message, out)
            eccodes.codes_release(message)
    return values


LEVEL = {"variable": "t", "level": 850}


def test_from_an_ensemble_in_grib_to_training(tmp_path):
    values = write_grib(tmp_path / "a.grib", days(12), members=(1, 2, 3))
    with pytest.raises(ValueError, match=r"dimension number of size 3 \(1, 2, 3\).*select: {number: 1}"):
        create(tmp_path, "a.grib", LEVEL)
    store = create(tmp_path, "a.grib", LEVEL, select={"number": 3})
    np.testing.assert_array_equal(store.dates, days(12))
    np.testing.assert_allclose(read(store), values[:, 2, 0, 0], atol=0.01)
    train_two_steps(store, tmp_path)


def test_from_a_forecast_in_grib_to_training(tmp_path):
    values = write_grib(
        tmp_path / "a.grib", days(1), members=(1, 2), steps=(0, 24, 48, 72, 96, 120, 144, 168)
    )
    with pytest.raises(ValueError, match=r"dimension number of size 2 \(1, 2\).*select: {number: 1}"):
        create(tmp_path, "a.grib", LEVEL)
    store = create(tmp_path, "a.grib", LEVEL, select={"number": 2})
    np.testing.assert_array_equal(store.dates, days(8))
    np.testing.assert_allclose(read(store), values[0, 1, :, 0], atol=0.01)
    train_two_steps(store, tmp_path)


def test_lead_time_of_many_forecasts_in_grib(tmp_path):
    values = write_grib(tmp_path / "a.grib", days(6), steps=(6, 12))
    with pytest.raises(ValueError, match=r"dimension step of size 2 \(6h, 12h\).*select: {step: 6h}"):
        create(tmp_path, "a.grib", LEVEL)
    store = create(tmp_path, "a.grib", LEVEL, select={"step": 12})
    np.testing.assert_array_equal(store.dates, days(6) + np.timedelta64(12, "h"))
    np.testing.assert_allclose(read(store), values[:, 0, 1, 0], atol=0.01)


def test_spherical_harmonics_are_refused_by_name(tmp_path):
    write_grib(tmp_path / "a.grib", days(2), grid="sh")
    with pytest.raises(ValueError, match=r"a\.grib: .* grid sh \(spherical harmonics\).*cdo sp2gpl"):
        create(tmp_path, "a.grib", LEVEL)


def test_a_reduced_gaussian_grid_is_a_list_of_cells(tmp_path):
    write_grib(tmp_path / "a.grib", days(2), grid="reduced_gg")
    store = create(tmp_path, "a.grib", LEVEL)
    assert len(store.field_shape) == 1
    assert len(set(store.latitudes.round(4))) == 64
