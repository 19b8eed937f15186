import numpy as np
import pytest
import torch
import xarray as xr

from diffusion_lab.assets import checkpoints, store_path
from diffusion_lab.data import open_store
from diffusion_lab.inference import load_forecaster
from diffusion_lab.inference.settings import SamplingSettings
from diffusion_lab.samplers import SAMPLERS
from diffusion_lab.training.publish import _SCORES, as_dict, network_calls


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_network_calls_are_those_a_sampler_makes(sampler):
    settings = SamplingSettings().override({"num_steps": 6}, {"sampler": sampler})
    *_, last = settings.steps(lambda y, sigma: 0.5 * y, noise)
    assert network_calls(settings.as_dict()) == last.nfe


def noise(draw):
    return torch.randn(1, 1, 1, 3, 2, generator=torch.Generator().manual_seed(draw))


def test_scores_are_rounded_to_four_digits():
    values = {name: (("variable", "lead_time"), [[1.0, 123.456789]]) for name in (*_SCORES, "spread_skill")}
    scores = as_dict(xr.Dataset(values, {"variable": ["z500"], "lead_time": [24, 48]}))
    assert scores["z500"]["fair_crps"] == 123.5


@pytest.mark.parametrize("name", ["example-tendency", "example-state"])
def test_released_checkpoints_are_small_and_start_from_the_shipped_store(name):
    assert checkpoints()[name].stat().st_size <= 2 * 2**20
    forecaster = load_forecaster(name)
    assert forecaster.release.store == "example"
    store = open_store(store_path("example"))
    _, last = forecaster.release.training["window"]
    assert np.datetime64(last) < np.datetime64("2025-01")  # the test year was never trained on
    assert forecaster.reader().store.variables == store.variables
    for scores in forecaster.release.scores["by_variable"].values():
        assert scores["fair_crps"] < scores["persistence_mae"]
