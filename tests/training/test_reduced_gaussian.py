"""From store to forecast on a grid without rows and columns: the octahedral reduced Gaussian grid O16."""

import numpy as np
import pytest
import torch

from diffusion_lab.graphs import multi_scale
from diffusion_lab.inference import load_forecaster
from diffusion_lab.making import StoreMetadata, Variable, create_store
from diffusion_lab.plots import forecast_panel
from diffusion_lab.training.build import build
from diffusion_lab.training.fit import fit
from diffusion_lab.training.release import export_release
from diffusion_lab.verification.layout import by_lead_time
from diffusion_lab.verification.protocol import score, truth_of

DAYS = 366


@pytest.fixture(scope="module")
def store(octahedral, tmp_path_factory):
    """t850: a wave that moves 20 degrees east a day, strongest at 45 degrees; orography."""
    latitudes, longitudes = octahedral(16)
    day, place = np.arange(DAYS)[:, None], np.deg2rad(latitudes)
    noise = np.random.default_rng(0).normal(0, 0.3, (DAYS, len(latitudes)))
    fields = np.zeros((DAYS, 2, len(latitudes)), np.float32)
    fields[:, 0] = 280 + 8 * np.sin(2 * place) ** 2 * np.cos(np.deg2rad(3 * longitudes - 20 * day)) + noise
    fields[:, 1] = 1000 * np.cos(place)
    metadata = StoreMetadata(
        [Variable("t850", "K"), Variable("orography", "m", "forcing", constant_in_time=True)],
        np.datetime64("2024-01-01", "s") + np.arange(DAYS) * np.timedelta64(1, "D"),
        latitudes,
        longitudes,
        (len(latitudes),),
        "o16",
        statistics_window=("2024", "2024"),
    )
    return create_store(tmp_path_factory.mktemp("o16") / "o16.zarr", metadata, lambda times: fields[times])


def test_a_cell_has_its_share_of_its_row(store):
    """Rows are as wide as their Gaussian weights; around the poles the caps' edge differs a little."""
    assert len(store.latitudes) == 4 * 16 * (16 + 9)
    assert store.field_shape == (1600,)
    rows, counts = np.unique(store.latitudes, return_counts=True)
    share = np.repeat(np.polynomial.legendre.leggauss(len(rows))[1] / 2 / counts, counts)[::-1]
    weights = multi_scale(store.latitudes, store.longitudes, refinement=1)["data"].area_weight.numpy()
    polar = np.abs(store.latitudes) == rows.max()
    np.testing.assert_allclose(weights[~polar], share[~polar], rtol=5e-3)
    np.testing.assert_allclose(weights[polar], share[polar], rtol=0.07)


@pytest.fixture(scope="module")
def forecaster(store, toy_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run = build(toy_config(folder, f"system.input.dataset={store.path}", "training.max_steps=2"))
    before = [parameter.clone() for parameter in run.task.model.parameters()]
    fit(run)
    assert run.task.global_step == 2
    moved = [not torch.equal(*pair) for pair in zip(before, run.task.model.parameters(), strict=True)]
    assert any(moved)
    return load_forecaster(export_release(run, folder / "o16.safetensors", {}), "cpu")


def test_forecast_and_score(forecaster, store, tmp_path):
    forecast = forecaster.forecast("2024-12-10", steps=2, members=3, noise_scheduler_params={"num_steps": 3})
    assert forecast["t850"].shape == (2, 3, 1600)
    np.testing.assert_array_equal(forecast["latitude"], store.latitudes)
    crps = score(forecast, store)["fair_crps"].sel(variable="t850").values
    assert ((crps > 0.1) & (crps < 8)).all()  # K: after two steps not good, but not lost either
    truth = truth_of(by_lead_time(forecast), store)
    figure = forecast_panel(forecast, truth, "t850", lead_time=np.timedelta64(1, "D"))
    figure.savefig(tmp_path / "o16.png")
