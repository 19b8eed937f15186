"""From simulated sigma levels to a store; SPEEDY itself runs only where jcm is installed."""

import numpy as np
import pytest
import xarray as xr

from diffusion_lab.graphs.sphere import gaussian_latitudes
from diffusion_lab.making.example import excerpt
from diffusion_lab.making.speedy import simulation as speedy
from diffusion_lab.making.speedy.pressure_levels import GAS_CONSTANT as R
from diffusion_lab.making.speedy.pressure_levels import GRAVITY as G

SIGMA = np.array([0.2, 0.34, 0.51, 0.685, 0.835, 0.95])
LATITUDES, LONGITUDES = gaussian_latitudes(48)[::-1], np.arange(96) * 3.75
T0 = 260.0


def hill():
    """Surface geopotential of a smooth hill of 1000 m on the T31 grid: harmonics n <= 2 only."""
    latitude, longitude = np.deg2rad(LATITUDES)[:, None], np.deg2rad(LONGITUDES)
    return 250.0 * G * (1 + np.cos(latitude) * np.cos(longitude)) * (1 + 0 * longitude)


def write_isothermal_chunks(workdir, chunks=3):
    """An atmosphere of 260 K and 1000 hPa at sea level over the hill, with a wave that travels around."""
    ground = hill()
    grid = {"latitude": LATITUDES, "longitude": LONGITUDES}
    surface = {"surface_geopotential": ground, "land_fraction": (ground > 250 * G).astype(float)}
    dims = ("latitude", "longitude")
    xr.Dataset({k: (dims, v) for k, v in surface.items()}, grid).to_netcdf(workdir / "constants.nc")
    start = np.datetime64("2020-01-01T12", "ns")
    for chunk in range(chunks):
        times = start + (20 * chunk + np.arange(20)) * np.timedelta64(12, "h")
        phase = (times - start) / np.timedelta64(1, "D") * 0.5
        wave = np.cos(3 * np.deg2rad(LONGITUDES)[None, None] - phase[:, None, None])
        wave = wave * np.cos(np.deg2rad(LATITUDES))[None, :, None] ** 3
        ps = 1e5 * np.exp(-ground / (R * T0)) * (1 + 0.002 * wave)
        level = np.ones((1, 6, 1, 1))
        geopotential = ground - R * T0 * np.log(SIGMA)[None, :, None, None] + 0 * wave[:, None]
        fields = {
            "temperature": (T0 + 2 * wave[:, None]) * level,
            "u": 10 * wave[:, None] * level,
            "v": -5 * wave[:, None] * level,
            "specific_humidity": 1e-3 * (1 + wave[:, None]) * level,
            "geopotential": geopotential + 100 * wave[:, None],
        }
        data = {name: (("time", "level", *dims), field.astype(np.float32)) for name, field in fields.items()}
        data["surface_pressure"] = (("time", *dims), ps.astype(np.float32))
        coords = {"time": times, "sigma": ("level", SIGMA), **grid}
        xr.Dataset(data, coords).to_netcdf(workdir / f"sigma_{str(times[0])[:10]}.nc")
    return workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_isothermal_chunks(tmp_path_factory.mktemp("speedy"))


def test_an_isothermal_atmosphere_keeps_its_closed_form(workdir):
    fields = speedy.pressure_level_dataset(workdir)
    assert fields.sizes == {"time": 60, "latitude": 32, "longitude": 64}
    assert fields.latitude[0] > fields.latitude[-1]
    first = fields.isel(time=0)
    wave = np.cos(3 * np.deg2rad(fields.longitude)) * np.cos(np.deg2rad(fields.latitude)) ** 3
    wave = wave.transpose("latitude", "longitude")
    np.testing.assert_allclose(first.t850, T0 + 2 * wave, atol=1e-3)
    np.testing.assert_allclose(first.z500, R * T0 * np.log(2 * (1 + 0.002 * wave)) + 100 * wave, atol=0.1)
    np.testing.assert_allclose(first.q700, 1e-3 * (1 + wave), atol=1e-8)
    # The lapse rate that the reduction assumes under the hill is not this atmosphere's: a few hPa at most.
    np.testing.assert_allclose(first.msl, 1e5 * (1 + 0.002 * wave), atol=400)
    low = first.orography < 2
    np.testing.assert_allclose(first.msl.where(low), (1e5 * (1 + 0.002 * wave)).where(low), atol=5)
    assert first.orography.max() == pytest.approx(500.0, abs=3)
    assert fields.z500.attrs == {"long_name": "geopotential at 500 hPa", "units": "m2 s-2"}


def test_chunks_are_opened_lazily_and_converted_once(workdir):
    fields = speedy.pressure_level_dataset(workdir)
    assert fields.z500.chunks[0] == (20, 20, 20)
    stamps = [path.stat().st_mtime_ns for path in sorted(workdir.glob("fields_*.nc"))]
    speedy.pressure_level_dataset(workdir)
    assert [path.stat().st_mtime_ns for path in sorted(workdir.glob("fields_*.nc"))] == stamps


@pytest.fixture(scope="module")
def store(workdir, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "s.zarr"
    return speedy.create_speedy_store(out, "2020-01-02", "2020-01-25", workdir, statistics_end="2020-01-15")


def test_the_store_is_rounded_by_less_than_one_percent_of_the_tendency(store, workdir):
    names = list(speedy.PROGNOSTIC)
    assert store.variables[: len(names)] == tuple(names)
    dates = slice("2020-01-02", "2020-01-25")
    fields = speedy.pressure_level_dataset(workdir).sel(time=dates)
    assert (store.dates == fields.time.values).all()
    for column, name in enumerate(names):
        exact = fields[name].values.reshape(48, -1)
        tendency = np.diff(exact[:28], axis=0).std()
        error = np.abs(store.read(slice(None), [name])[:, 0, 0] - exact).max()
        assert error <= 0.01 * tendency, name
        if name == "u850":
            assert store.tendency_statistics("12h").stdev[column] == pytest.approx(tendency, rel=1e-3)


def test_the_stores_cells_and_forcings(store):
    assert store.field_shape == (32, 64)
    assert store.latitudes[64] == pytest.approx(gaussian_latitudes(32)[1])
    assert (store.roles["lsm"], store.roles["cos_local_time"], store.roles["z500"]) == (
        "forcing",
        "forcing",
        "prognostic",
    )
    noon = store.read(store.index("2020-01-02T12"), ["cos_local_time"])[0, 0, 0]
    np.testing.assert_allclose(noon[:64], -np.cos(np.deg2rad(store.longitudes[:64])), atol=2**-15)


def test_other_dates_than_simulated_are_an_error(workdir, tmp_path):
    with pytest.raises(ValueError, match="other dates"):
        speedy.create_speedy_store(tmp_path / "s.zarr", "2019-12-01", "2020-01-10", workdir)
    for name in ("t2m", "lsm"):  # the land mask is there, but is no prognostic variable
        with pytest.raises(KeyError, match=name):
            speedy.create_speedy_store(tmp_path / "s.zarr", workdir=workdir, variables=[name])


def test_an_excerpt_has_the_same_values_and_statistics(store, tmp_path):
    part = excerpt(store, tmp_path / "part.zarr", "2020-01-10T12", "2020-01-20T00")
    chosen = slice(store.index("2020-01-10T12"), store.index("2020-01-20T00") + 1)
    np.testing.assert_array_equal(part.read(slice(None)), store.read(chosen))
    np.testing.assert_array_equal(part.dates, store.dates[chosen])
    np.testing.assert_array_equal(part.statistics.stdev, store.statistics.stdev)
    np.testing.assert_array_equal(part.tendency_statistics("1d").stdev, store.tendency_statistics("1d").stdev)
    with pytest.raises(ValueError, match="no date"):
        excerpt(store, tmp_path / "none.zarr", "2021", "2021")


def test_a_killed_simulation_resumes_bit_for_bit(tmp_path, monkeypatch):
    pytest.importorskip("jcm")
    monkeypatch.setattr(speedy, "CHUNK_DAYS", 1)
    monkeypatch.setattr(speedy, "SPIN_UP", np.timedelta64(1, "D"))
    speedy.simulate(tmp_path / "whole", "2020-01-02", "2020-01-04")
    speedy.simulate(tmp_path / "parts", "2020-01-02", "2020-01-03")
    speedy.simulate(tmp_path / "parts", "2020-01-02", "2020-01-04")
    chunks = sorted(path.name for path in (tmp_path / "whole").glob("sigma_*.nc"))
    assert chunks == sorted(path.name for path in (tmp_path / "parts").glob("sigma_*.nc"))
    for name in chunks:
        with (
            xr.open_dataset(tmp_path / "whole" / name) as whole,
            xr.open_dataset(tmp_path / "parts" / name) as part,
        ):
            xr.testing.assert_identical(whole, part)
    with xr.open_dataset(tmp_path / "whole" / chunks[0]) as chunk:
        assert chunk.surface_pressure.mean() == pytest.approx(98600, abs=1500)
