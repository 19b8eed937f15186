import numpy as np
import pytest

from diffusion_lab.assets import checkpoints, store_path, stores
from diffusion_lab.graphs import area_weights
from diffusion_lab.inference import load_forecaster
from diffusion_lab.stores import open_store


@pytest.fixture(scope="module")
def store():
    return open_store(store_path("example"))


def test_names_are_found_and_other_paths_left_alone():
    assert "example" in stores()
    assert {"example-tendency", "example-state", "example-tendency-weak"} <= checkpoints().keys()
    assert store_path("gs://bucket/mine.zarr") == "gs://bucket/mine.zarr"


def test_the_checkpoints_are_small_together_and_each_has_its_card():
    assert sum(path.stat().st_size for path in checkpoints().values()) <= 10_000_000
    assert all(path.with_suffix(".md").is_file() for path in checkpoints().values())


@pytest.mark.parametrize("name", checkpoints())
def test_released_checkpoints_are_small_and_say_how_they_were_made(name):
    assert checkpoints()[name].stat().st_size <= 2_000_000
    release = load_forecaster(name, "cpu").release
    assert release.store == "example"
    assert {"command", "data", "steps", "seconds", "seed", "device"} <= release.training.keys()
    assert release.scores


@pytest.mark.parametrize("name", checkpoints())
def test_released_checkpoints_beat_persistence(store, name):
    """Weights, graph, variables and normalisation still belong together."""
    forecaster = load_forecaster(name, "cpu")
    start = np.datetime64("2025-03-01", "s")
    forecast = forecaster.forecast(start, 1, 2, 0, store, {"num_steps": 6}, {"sampler": "deis"})
    first, last = (store.index(date) for date in (start, start + forecaster.step))
    area = area_weights(store.latitudes, store.longitudes)
    # The transformers were trained for fewer steps, the weak one for hundreds.
    most = 0.9 if name.endswith("weak") else 0.75 if name.endswith("transformer") else 0.6
    for variable in ("z500", "t850"):
        before, after = store.read([first, last], [variable])[:, 0, 0]
        error = forecast[variable].mean("ensemble").values[0] - after
        ratio = np.sqrt((area @ error**2) / (area @ (before - after) ** 2))
        assert ratio < most, variable
