"""What past versions wrote is read for ever: the same numbers, and the same forecast.

Each version adds a store (zipped) and a release file to `data_files`; none is ever made again.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from diffusion_lab.inference import load_forecaster
from diffusion_lab.stores.store import open_store

FILES = Path(__file__).parent / "data_files"
VERSIONS = ["0.1.0"]
# Of a forecast from 15 January 2020, 1 step, 2 members: mean and standard deviation.
FORECAST = {"0.1.0": {"t": (2.107531, 19.06119), "z": (-64.6421, 361.7826)}}


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def store(version, tmp_path):
    shutil.unpack_archive(FILES / f"store_{version}.zip", tmp_path)
    return open_store(tmp_path / "store.zarr")


def test_store(store):
    day, lat, lon = np.arange(20)[:, None], store.latitudes, store.longitudes
    assert store.roles == {"t": "prognostic", "z": "diagnostic", "orography": "forcing"}
    assert (store.units("t"), store.long_name("t")) == ("K", "temperature")
    np.testing.assert_array_equal(store.dates, np.datetime64("2020-01-01") + np.arange(20))
    np.testing.assert_array_equal(np.flatnonzero(store.missing), [7])
    values = np.delete(store.read(slice(None), ["t", "z"])[:, :, 0], 7, axis=0)
    t = 10 * np.sin(day) * np.cos(np.radians(lon)) + lat / 10
    z = 100 * np.cos(np.radians(lon)) + day**2
    np.testing.assert_array_equal(values, np.delete(np.stack([t, z], 1).astype(np.float32), 7, axis=0))
    inside = np.delete(z[:16], 7, axis=0)
    assert store.statistics.stdev[1] == pytest.approx(inside.std(), rel=1e-6)
    np.testing.assert_array_equal(store.tendency_statistics("1d").maximum[2], 0)


def test_release(version, store):
    forecaster = load_forecaster(FILES / f"release_{version}.safetensors", "cpu")
    settings = {"num_steps": 3}
    forecast = forecaster.forecast("2020-01-15", 1, 2, 0, store, noise_scheduler_params=settings)
    for name, (mean, stdev) in FORECAST[version].items():
        assert float(forecast[name].mean()) == pytest.approx(mean, rel=1e-3)
        assert float(forecast[name].std()) == pytest.approx(stdev, rel=1e-3)
