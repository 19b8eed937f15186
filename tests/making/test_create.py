import argparse

import numpy as np
import pytest
import xarray as xr

from diffusion_lab.commands.data import add_parser
from diffusion_lab.making.create import create_from_recipe
from diffusion_lab.making.recipes import DatesRecipe, StatisticsRecipe, load_recipe, parse_recipe
from diffusion_lab.stores.forcings import compute_forcing
from diffusion_lab.stores.store import open_store

LATITUDES = np.array([60.0, 50.0, 40.0, 30.0])
LONGITUDES = np.array([-15.0, 0.0, 15.0])
DATES = np.datetime64("2001-01-01", "ns") + np.arange(40) * np.timedelta64(1, "D")


def daily(dates=DATES, latitudes=LATITUDES, longitudes=LONGITUDES):
    """Two variables and one on two levels, daily."""
    rng = np.random.default_rng(5)
    shape = (len(dates), len(latitudes), len(longitudes))

    def values(*extra):
        return rng.normal(size=(shape[0], *extra, *shape[1:])).astype(np.float32)

    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {
            "t2m": (dims, 280 + values(), {"units": "K", "long_name": "2 metre temperature"}),
            "sst": (dims, 290 + values(), {"units": "K"}),
            "z": (("time", "level", "latitude", "longitude"), 5e4 + values(2), {"units": "m**2 s**-2"}),
        },
        {"time": dates, "level": [500, 850], "latitude": latitudes, "longitude": longitudes},
    )


def recipe(tmp_path, **change):
    base = {
        "description": "d",
        "source": f"{tmp_path}/*.nc",
        "statistics": {"start": "2001-01-01", "end": "2001-01-31"},
        "variables": {"t2m": "t2m", "z850": {"variable": "z", "level": 850}},
    }
    return parse_recipe(base | change)


def create(tmp_path, **change):
    return create_from_recipe(recipe(tmp_path, **change), tmp_path / "s.zarr")


def cells(array):
    return array.transpose("time", "latitude", "longitude").values.reshape(array.sizes["time"], -1)


def test_regional_files_become_a_store(tmp_path):
    source = daily()
    source.isel(time=slice(25, None)).to_netcdf(tmp_path / "a.nc")  # names against the order of dates
    source.isel(time=slice(0, 25)).to_netcdf(tmp_path / "b.nc")
    store = create(tmp_path, forcings=["cos_latitude", "insolation"], licence="CC0")
    assert store.variables == ("t2m", "z850", "cos_latitude", "insolation")
    assert store.units("z850") == "m2 s-2"
    assert store.roles["insolation"] == store.roles["cos_latitude"] == "forcing"
    assert store.attributes["constant_fields"] == ["cos_latitude"]
    assert (store.field_shape, store.attributes["frequency"]) == ((4, 3), "1d")
    np.testing.assert_array_equal(store.dates, DATES)
    np.testing.assert_array_equal(store.latitudes, np.repeat(LATITUDES, 3))
    np.testing.assert_array_equal(store.longitudes, np.tile(LONGITUDES, 4))
    values = store.read(slice(None))[:, :, 0]
    np.testing.assert_array_equal(values[:, 0], cells(source["t2m"]))
    np.testing.assert_array_equal(values[:, 1], cells(source["z"].sel(level=850)))
    sun = compute_forcing("insolation", DATES, store.latitudes, store.longitudes)
    np.testing.assert_array_equal(values[:, 3], sun)
    january = cells(source["t2m"])[:31].astype(np.float64)
    assert store.statistics.mean[0] == pytest.approx(january.mean(), rel=1e-12)
    tendency = store.tendency_statistics("1d")
    assert tendency.stdev[0] == pytest.approx((january[1:] - january[:-1]).std(), rel=1e-12)


@pytest.fixture
def weatherbench(tmp_path):
    """A zarr with the names, dimensions, their order, and coordinates of WeatherBench 2's ERA5."""
    load = load_recipe("era5_wb2_64x32")
    specs = [*load.variables.values(), *load.constants.values()]
    dates = np.datetime64("2020-12-25", "ns") + np.arange(60) * np.timedelta64(6, "h")
    rng = np.random.default_rng(6)
    coordinates = {
        "time": dates,
        "level": [500, 700, 850],
        "longitude": np.arange(64) * 5.625,
        "latitude": np.arange(32) * 5.625 - 87.1875,
    }
    levelled = {spec.variable for spec in specs if spec.level is not None}
    constant = {spec.variable for spec in load.constants.values()}
    variables = {}
    for name in {spec.variable for spec in specs}:
        dims = ("longitude", "latitude") if name in constant else ("time", "longitude", "latitude")
        dims = ("time", "level", "longitude", "latitude") if name in levelled else dims
        values = rng.normal(size=[len(coordinates[dim]) for dim in dims]).astype(np.float32)
        variables[name] = (dims, values, {"units": "some"})
    source = xr.Dataset(variables, coordinates)
    path = tmp_path / "wb2.zarr"
    source.chunk(time=20).to_zarr(path, zarr_format=2)
    return source, path


def test_weatherbench_recipe(tmp_path, weatherbench):
    source, path = weatherbench
    changed = load_recipe("era5_wb2_64x32").model_copy(
        update={
            "source": (str(path),),
            "dates": DatesRecipe(start="2020-12-26", end="2021-01-07"),
            "statistics": StatisticsRecipe(start="2020", end="2020"),
        }
    )
    store = create_from_recipe(changed, tmp_path / "s.zarr")
    assert store.attributes["resolution"] == "5.625"
    assert (store.field_shape, len(store.dates), store.tendency_leads) == ((32, 64), 52, ("6h", "12h", "1d"))
    part = source.sel(time=slice("2020-12-26", "2021-01-07"))
    for name, spec in changed.variables.items():
        array = part[spec.variable] if spec.level is None else part[spec.variable].sel(level=spec.level)
        np.testing.assert_array_equal(store.read(slice(None), [name])[:, 0, 0], cells(array))
    orography = part["geopotential_at_surface"].transpose("latitude", "longitude").values.ravel()
    np.testing.assert_array_equal(store.read([0, 51], ["z"])[:, 0, 0], [orography, orography])
    assert store.roles["lsm"] == store.roles["cos_local_time"] == "forcing"
    assert store.attributes["statistics_end_date"] == "2020-12-31T18:00:00"
    # A cell keeps its place: row 3, column 5.
    assert (store.latitudes[3 * 64 + 5], store.longitudes[3 * 64 + 5]) == (-87.1875 + 3 * 5.625, 28.125)


def test_one_file_per_level_and_packed_values(tmp_path):
    source = daily()
    source[["t2m"]].to_netcdf(
        tmp_path / "t.nc",
        encoding={"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}},
    )
    for level in (500, 850):
        source[["z"]].sel(level=level).to_netcdf(tmp_path / f"z{level}.nc")
    store = create(tmp_path)
    np.testing.assert_allclose(store.read(slice(None), ["t2m"])[:, 0, 0], cells(source["t2m"]), atol=0.0051)
    np.testing.assert_array_equal(
        store.read(slice(None), ["z850"])[:, 0, 0], cells(source["z"].sel(level=850))
    )


def test_dates_by_another_name_and_every_second_one(tmp_path):
    source = daily()
    source.rename(time="valid_time").to_netcdf(tmp_path / "a.nc")
    store = create(tmp_path, dates={"start": "2001-01-03", "end": "2001-01-20", "frequency": "2d"})
    np.testing.assert_array_equal(store.dates, DATES[2:20:2])
    np.testing.assert_array_equal(store.read(1, ["t2m"])[:, 0, 0], cells(source["t2m"])[[4]])


def test_declared_gap_and_allowed_nan(tmp_path):
    source = daily()
    source["sst"][:, 0, 0] = np.nan
    source.isel(time=[t for t in range(40) if t not in (10, 11)]).to_netcdf(tmp_path / "a.nc")
    missing = [str(date)[:10] for date in DATES[[10, 11]]]
    sst = {"sst": {"variable": "sst", "allow_nan": True, "units": "kelvin"}}
    store = create(tmp_path, dates={"missing": missing}, variables=sst)
    np.testing.assert_array_equal(np.flatnonzero(store.missing), [10, 11])
    assert np.isnan(store.read([10, 11])).all()
    assert np.isnan(store.read(9)[0, 0, 0, 0]) and np.isfinite(store.read(9)[0, 0, 0, 1:]).all()
    inside = np.delete(cells(source["sst"])[:31].astype(np.float64), [10, 11], axis=0)
    assert store.statistics.stdev[0] == pytest.approx(np.nanstd(inside), rel=1e-12)
    assert store.units("sst") == "kelvin"


def shifted(source, **change):
    return source.assign_coords({name: source[name] + by for name, by in change.items()})


def unsorted(source):
    return source.isel(time=[0, 2, 1, *range(3, 40)])


def nan_at(source):
    source["t2m"][7, 1, 2] = np.nan
    return source


BAD = {
    "unsorted": (unsorted, r"a\.nc: dates are not sorted, 2001-01-02T00:00 follows 2001-01-03T00:00"),
    "duplicate": (
        lambda s: s.isel(time=[0, 1, 1, *range(2, 40)]),
        r"a\.nc: the date 2001-01-02T00:00 appears twice",
    ),
    "gap": (
        lambda s: s.isel(time=[0, 1, *range(4, 40)]),
        r"t2m .*a\.nc.* no data for 2 of the 40 dates: 2001-01-03T00:00, 2001-01-04T00:00.*missing",
    ),
    "uneven": (
        lambda s: s.assign_coords(time=np.where(np.arange(40) == 9, DATES + np.timedelta64(7, "h"), DATES)),
        r"uneven: 2001-01-10T07:00 is not a multiple of 1d after 2001-01-01T00:00",
    ),
    "nan": (nan_at, r"t2m is nan at 2001-01-08T00:00, cell 5 \(latitude 50, longitude 15\)"),
    "no such variable": (
        lambda s: s.rename(t2m="t2n"),
        r"No source file has a variable 't2m'; did you mean 't2n'",
    ),
    "no such level": (lambda s: s.assign_coords(level=[500, 925]), r"z has no level 850; it has .*925"),
    "odd names": (lambda s: s.rename(latitude="phi"), r"a\.nc: cannot tell .* latitude among .*phi"),
    "no calendar": (
        lambda s: s.assign_coords(time=("time", np.arange(40), {"units": "month"})),
        r"a\.nc: time cannot be understood as dates",
    ),
    "months of 30 days": (
        lambda s: s.convert_calendar("360_day", align_on="date", use_cftime=True),
        r"a\.nc: time is in the calendar 360_day, .*convert_calendar",
    ),
    "scaled": (lambda s: shifted(s, latitude=500), r"a\.nc: latitude runs to 560; latitudes end at 90"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file(tmp_path, case):
    change, message = BAD[case]
    change(daily()).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=message) as error:
        create(tmp_path)
    assert len(str(error.value)) < 500


def test_bad_company(tmp_path):
    source = daily()
    source.to_netcdf(tmp_path / "a.nc")
    later = source.assign_coords(time=DATES + np.timedelta64(40, "D"))
    shifted(later, longitude=1.0).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(
        ValueError, match=r"grids differ: .*b\.nc has .*-14 to 16, but .*a\.nc has .*-15 to 15"
    ):
        create(tmp_path)
    shifted(later, time=-np.timedelta64(3, "D")).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match=r"a\.nc and .*b\.nc both hold 2001-02-07T00:00"):
        create(tmp_path)
    (tmp_path / "b.nc").write_bytes((tmp_path / "a.nc").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"Cannot read .*b\.nc; is it truncated"):
        create(tmp_path)
    assert not (tmp_path / "s.zarr").exists()


def test_recipe_and_files_do_not_agree(tmp_path):
    daily().to_netcdf(tmp_path / "a.nc")
    with pytest.raises(
        ValueError, match=r"asks for 1999 to 2001-01-09, .* hold 2001-01-01T00:00 to 2001-02-09"
    ):
        create(tmp_path, dates={"start": 1999, "end": "2001-01-09"})
    with pytest.raises(ValueError, match=r"z has 2 values of level: 500, 850. Say which"):
        create(tmp_path, variables={"z": "z"})
    with pytest.raises(ValueError, match="No date is in the statistics window 1990 to 1991"):
        create(tmp_path, statistics={"start": 1990, "end": 1991})
    with pytest.raises(FileNotFoundError, match=r"No file matches the source 'none/\*\.nc'"):
        create(tmp_path, source="none/*.nc")


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    daily().to_netcdf(tmp_path / "a.nc")
    file = tmp_path / "r.yaml"
    file.write_text(
        f"description: about it\nsource: {tmp_path}/*.nc\n"
        "statistics: {start: 2001-01-01, end: 2001-01-31}\n"
        "variables: {t2m: {variable: t2m, role: diagnostic}}\n"
    )
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())

    def run(*words):
        arguments = parser.parse_args(["data", *words])
        arguments.run(arguments)
        return capsys.readouterr().out

    run("create", str(file), str(tmp_path / "s.zarr"))
    assert open_store(tmp_path / "s.zarr").roles == {"t2m": "diagnostic"}
    out = run("inspect", str(tmp_path / "s.zarr"))
    for word in (
        "about it",
        "40, 2001-01-01T00:00 to 2001-02-09T00:00, every 1d",
        "4 x 3 = 12 cells",
        "diagnostic",
    ):
        assert word in out
    assert "CUT SHORT" not in out
    (tmp_path / "s.zarr" / "data" / "0.0.0.0").unlink()
    assert "1 chunks of data are missing" in run("inspect", str(tmp_path / "s.zarr"))
    assert "era5_wb2_64x32" in run("list") and "speedy" in run("list")
    with pytest.raises(ValueError, match="--start and --end are for 'speedy'"):
        run("create", str(file), str(tmp_path / "s.zarr"), "--start", "2001")
