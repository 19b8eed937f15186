import numpy as np
import pytest
import xarray as xr

from diffusion_lab.assets import checkpoints, store_path
from diffusion_lab.commands import publish as module
from diffusion_lab.commands.publish import (
    PublishRequest,
    as_dict,
    measured_weaknesses,
    publish,
    scored_starts,
    with_defaults,
)
from diffusion_lab.inference import load_forecaster
from diffusion_lab.stores import open_store
from diffusion_lab.training.build import build
from diffusion_lab.training.release import export_release, training_facts


def test_found_settings_become_the_defaults():
    forecaster = load_forecaster("example-tendency")
    found = {"noise_scheduler_params": {"num_steps": 7}, "sampler_params": {"sampler": "deis"}}
    tuned = with_defaults(forecaster, found)
    assert tuned.settings.as_dict() == forecaster.settings.override(**found).as_dict()
    assert tuned.release.inference_defaults == tuned.settings.as_dict()
    assert forecaster.settings.as_dict() != tuned.settings.as_dict()
    with pytest.raises(ValueError, match="num_step"):
        with_defaults(forecaster, {"noise_scheduler_params": {"num_step": 7}})


@pytest.mark.parametrize(("days", "number"), [(1, 26), (5, 26), (20, 25), (40, 24)])
def test_the_store_holds_the_truth_of_all_that_is_scored(days, number):
    store = open_store(store_path("example"))
    lead_time = np.timedelta64(days, "D")
    starts = scored_starts(store, lead_time)
    assert len(starts) == number
    assert starts[0] == np.datetime64("2025-01-01")
    assert set(np.diff(starts)) == {np.timedelta64(14, "D")}
    assert starts[-1] + lead_time <= store.dates[-1]


@pytest.fixture
def scores():
    one = (("variable", "lead_time"), [[1.0, 123.456789]])
    interval = (("bound", "variable", "lead_time"), [[[0.5, np.nan]], [[2.0, 130.06]]])
    ratio = np.ones((1, 2, 22))
    ratio[0, 1, [0, 3, 20, 21]] = 0.7  # the mean, and what a grid hardly carries, do not count
    return xr.Dataset(
        {
            "fair_crps": one,
            "fair_crps_interval": interval,
            "spread_skill": (("variable", "lead_time"), [[0.95, 0.85]]),
            "persistence_rmse": one,
            "persistence_crpss": (("variable", "lead_time"), [[0.5, -0.1]]),
            "power_ratio": (("variable", "lead_time", "wavenumber"), ratio),
        },
        {
            "variable": ["z500"],
            "lead_time": np.array([24, 120], "timedelta64[h]"),
            "wavenumber": np.arange(22),
        },
    )


def test_scores_are_rounded_to_four_digits(scores):
    kept = as_dict(scores)["z500"]
    assert kept["fair_crps"] == [1.0, 123.5]
    assert kept["fair_crps_interval"] == [[0.5, 2.0], [None, 130.1]]
    assert "power_ratio" not in kept


def test_the_card_says_what_the_scores_show(scores):
    assert measured_weaknesses(scores) == [
        "z500 at 5 d: CRPS above that of persistence.",
        "z500 at 5 d: spread too small, 0.85 of what it should be.",
        "z500 at 5 d: power 0.70 to 1.00 of the truth's, over 20 % off at the wavenumbers 3, 20.",
    ]


def test_a_card_says_how_it_was_trained_and_keeps_what_was_added(
    toy_config, toy_store, tmp_path, monkeypatch
):
    """Published again, it brings its note and its remarks along; another store's year has its table."""
    run = build(toy_config(tmp_path))
    checkpoint = export_release(run, tmp_path / "toy.safetensors", training_facts(run, "by a test", 3.0))
    monkeypatch.setattr(module, "store_path", lambda _: toy_store.path)
    monkeypatch.setattr(module, "STARTS", 2)
    monkeypatch.setattr(module, "MEMBERS", 2)
    remarks = tmp_path / "remarks.md"
    remarks.write_text("## How much is left\n\nA tenth.\n")

    def published(source, name, *words):
        (tmp_path / name).mkdir()
        asked = [f"checkpoint={source}", f"output={tmp_path / name}", "device=cpu", "lead_time=1d"]
        return publish(PublishRequest.parse([*asked, f"unseen={toy_store.path}", *words]))

    first = published(checkpoint, "once", "note=noted", f"remarks={remarks}")
    again = published(first, "again")
    card = again.with_suffix(".md").read_text()
    assert card == first.with_suffix(".md").read_text()
    assert "once, from scratch, 12 steps of 4, " in card and "`; noted" in card
    assert f"\n{remarks.read_text()}\n## Known weaknesses" in card
    assert "### A year that nothing was chosen by: test year 2024, 2 starts" in card
    assert card.count("| t850 [K] | 24 h |") == 2


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
        assert (np.asarray(scores["fair_crps"]) < scores["persistence_mae"]).all()
