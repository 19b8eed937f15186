import shutil

import numpy as np
import pytest
import xarray as xr

from diffusion_lab.inference import write_forecast
from diffusion_lab.inference.labels import cf_attributes

START = np.datetime64("2024-12-05", "s")


@pytest.mark.filterwarnings("error")  # of metadata that is not consolidated, of times without a unit
@pytest.mark.parametrize("name", ["forecast.zarr", "deeper/forecast.nc"])
def test_files_hold_what_forecast_returns(forecaster, toy_store, tmp_path, name):
    path = write_forecast(tmp_path / name, forecaster.rollout(START, 3, [0, 2], data=toy_store))
    assert path == tmp_path / name
    stored = xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path, engine="h5netcdf")
    expected = forecaster.forecast(START, 3, [0, 2], data=toy_store)
    for variable in expected.variables:
        np.testing.assert_array_equal(stored[variable], expected[variable], err_msg=variable)
        assert stored[variable].dims == expected[variable].dims
        assert stored[variable].dtype == expected[variable].dtype, variable
        for key, value in expected[variable].attrs.items():
            assert stored[variable].attrs[key] == value
    assert stored.attrs["Conventions"] == "CF-1.11"
    assert list(stored.attrs["field_shape"]) == [12, 24]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing else is left behind


def test_each_step_is_on_disk_before_the_next_is_made(forecaster, toy_store, tmp_path):
    lengths, rollout = [], forecaster.rollout(START, 3, [0], data=toy_store)

    def watched():
        for state in rollout.states():
            zarrs = list(tmp_path.glob("*.zarr"))
            lengths.append(xr.open_zarr(zarrs[0], consolidated=False).sizes["time"] if zarrs else 0)
            yield state

    write_forecast(tmp_path / "f.nc", rollout, watched())
    assert lengths == [0, 1, 2]


def never():
    raise AssertionError("a step was made")
    yield


@pytest.mark.parametrize("name", ["f.zarr", "f.nc"])
def test_a_forecast_from_before_is_replaced_only_if_asked(forecaster, toy_store, tmp_path, name):
    longer, shorter = (forecaster.rollout(START, steps, [0], data=toy_store) for steps in (3, 1))
    write_forecast(tmp_path / name, longer)
    with pytest.raises(ValueError, match=r"is there already; .* or overwrite=true to replace it"):
        write_forecast(tmp_path / name, shorter, never())
    path = write_forecast(tmp_path / name, shorter, overwrite=True)
    stored = xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path, engine="h5netcdf")
    assert stored.sizes["time"] == 1
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("kind", ["store.zarr", "run.zarr", "file.nc"])
def test_what_is_not_a_forecast_is_never_replaced(toy_store, tmp_path, kind):
    path = tmp_path / kind
    if kind == "store.zarr":
        shutil.copytree(toy_store.path, path)
    elif kind == "run.zarr":
        path.mkdir()
        (path / "last.ckpt").write_text("kept")
    else:
        path.write_text("kept")
    before = sorted(file.name for file in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="is there already and is not a forecast"):
        write_forecast(path, None, never(), overwrite=True)
    assert sorted(file.name for file in tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_an_error_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_forecast(tmp_path / "file" / "f.nc", None, never())


@pytest.mark.parametrize("name", ["f.zarr", "f.nc"])
def test_a_forecast_has_its_name_only_when_it_is_complete(forecaster, toy_store, tmp_path, name):
    rollout = forecaster.rollout(START, 2, [0], data=toy_store)

    def stopped():
        yield next(rollout.states())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_forecast(tmp_path / name, rollout, stopped())
    assert not (tmp_path / name).exists()
    assert write_forecast(tmp_path / name, rollout).exists()


def test_other_endings_are_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(ValueError, match=r"NAME.zarr or NAME.nc, not to '.*forecast.grib'"):
        write_forecast(tmp_path / "forecast.grib", None)


def test_units_that_are_not_known_are_not_made_up(forecaster, toy_store):
    t850, *others = forecaster.release.variables
    forecaster.release.variables = [t850.model_copy(update={"units": ""}), *others]
    forecast = forecaster.forecast(START, 1, [0], data=toy_store)
    assert "units" not in forecast["t850"].attrs
    assert forecast["msl"].attrs["units"] == "Pa"


@pytest.mark.parametrize(
    ("name", "standard"),
    [
        ("z500", "geopotential"),
        ("t_850", "air_temperature"),
        ("2t", "air_temperature"),
        ("q1000", "specific_humidity"),
        ("msl", "air_pressure_at_mean_sea_level"),
        ("10u", "eastward_wind"),
        ("tp", "lwe_thickness_of_precipitation_amount"),
        ("sst", None),
        ("700", None),
    ],
)
def test_standard_names(name, standard):
    assert cf_attributes(name).get("standard_name") == standard
