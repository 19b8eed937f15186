import numpy as np
import pytest
import xarray as xr

from diffusion_lab.data.climatology import climatology_of
from diffusion_lab.verification import (
    baselines_of,
    forecast_starts,
    save_report,
    score,
    spread_out,
    truth_of,
)

DAY = np.timedelta64(1, "D")
STARTS = np.array(["2024-12-01", "2025-01-15"], "datetime64[s]")


class Echo:
    """A forecaster whose members are the start's state plus lead times and member number."""

    step = DAY.astype("timedelta64[s]")

    def __init__(self, store):
        self.store, self.calls = store, []

    def forecast(self, date, steps, members, seed, data, **overrides):
        self.calls.append((date, steps, members, seed, data, overrides))
        leads = np.arange(1, steps + 1)
        offsets = 10.0 * leads[:, None, None] + np.arange(members)[:, None]
        state = self.store.read(self.store.index(date), ["t850", "msl"])[0, :, 0]
        return xr.Dataset(
            {
                name: (("time", "ensemble", "cell"), state[i] + offsets, {"units": "K"})
                for i, name in enumerate(["t850", "msl"])
            },
            {
                "time": date + leads * DAY,
                "lead_time": ("time", leads * DAY),
                "latitude": ("cell", self.store.latitudes),
                "longitude": ("cell", self.store.longitudes),
                "forecast_reference_time": date,
            },
        )


@pytest.fixture
def forecast(toy_store):
    return forecast_starts(Echo(toy_store), STARTS, 2, 3, data=toy_store, progress=False)


def test_starts_are_spread_evenly():
    dates = np.datetime64("2025-01-01") + np.arange(31) * DAY
    assert spread_out(dates, 4).astype(str).tolist() == [
        "2025-01-01",
        "2025-01-11",
        "2025-01-21",
        "2025-01-31",
    ]
    assert len(spread_out(dates[:3], 26)) == 3


def test_starts_at_intervals_skip_what_is_lacking():
    dates = np.delete(np.datetime64("2025-01-01") + np.arange(31) * DAY, 14)
    every = spread_out(dates, 26, 7 * DAY)
    assert every.astype(str).tolist() == ["2025-01-01", "2025-01-08", "2025-01-22", "2025-01-29"]
    assert spread_out(dates, 2, 7 * DAY).astype(str).tolist() == ["2025-01-01", "2025-01-08"]


def test_forecasts_of_several_starts_stand_side_by_side(toy_store, forecast):
    assert forecast["t850"].dims == ("start", "lead_time", "ensemble", "cell")
    np.testing.assert_array_equal(forecast["forecast_reference_time"], STARTS)
    start = toy_store.read(toy_store.index(STARTS[1]), ["msl"])[0, 0, 0]
    np.testing.assert_allclose(forecast["msl"][1, 0, 2], start + 12)


def test_settings_reach_the_forecaster(toy_store):
    echo = Echo(toy_store)
    params = {"noise_scheduler_params": {"num_steps": 3}, "sampler_params": {"S_churn": 1.0}}
    forecast_starts(echo, STARTS, 2, 3, seed=5, data=toy_store, progress=False, **params)
    assert echo.calls == [(start, 2, 3, 5, toy_store, params) for start in STARTS]


def test_truth_is_what_the_store_holds_at_valid_times(toy_store, forecast):
    truth = truth_of(forecast, toy_store)
    stored = toy_store.read(toy_store.index("2025-01-17"), ["msl"])[0, 0, 0]
    np.testing.assert_array_equal(truth["msl"][1, 1], stored)


def test_baselines_are_the_start_and_the_season(toy_store, forecast):
    baselines = baselines_of(forecast, toy_store)
    assert list(baselines) == ["persistence", "climatology"]
    start = toy_store.read(toy_store.index("2024-12-01"), ["t850"])[0, 0, 0]
    np.testing.assert_array_equal(baselines["persistence"]["t850"][0], np.stack([start, start]))
    climatology = climatology_of(toy_store)
    expected = climatology.evaluate(np.array(["2024-12-03"], "datetime64[s]"))[0]
    column = climatology.variables.index("msl")
    np.testing.assert_allclose(baselines["climatology"]["msl"][0, 1], expected[column])


def test_scores_by_hand(toy_store, forecast):
    scores = score(forecast, toy_store)
    area = np.cos(np.deg2rad(toy_store.latitudes))
    area /= area.sum()
    for lead in (0, 1):
        errors, absolute, change = [], [], []
        for start in STARTS:
            first = toy_store.index(start)
            states = toy_store.read([first, first + lead + 1], ["t850"])[:, 0, 0].astype(np.float64)
            members = states[0] + 10 * (lead + 1) + np.arange(3)[:, None]
            errors.append(area @ (members.mean(0) - states[1]) ** 2)
            # The mean distance of two of the members 0, 1, 2 is 4/3; fair CRPS takes half of it off.
            absolute.append(area @ np.abs(members - states[1]).mean(0) - 2 / 3)
            change.append(area @ np.abs(states[0] - states[1]))
        row = scores.sel(variable="t850").isel(lead_time=lead)
        # Areas of the polar caps differ a little from the cosine.
        assert row["rmse"].item() == pytest.approx(np.sqrt(np.mean(errors)), rel=3e-3)
        assert row["fair_crps"].item() == pytest.approx(np.mean(absolute), rel=3e-3)
        assert row["persistence_mae"].item() == pytest.approx(np.mean(change), rel=1e-2)
        assert row["spread"].item() == pytest.approx(1.0)  # the members 0, 1, 2 have variance 1
        assert row["rank_histogram"].sum().item() == pytest.approx(1.0)


def test_a_variable_without_truth_is_refused(toy_store, forecast):
    with pytest.raises(KeyError, match="no variable 'q700'"):
        score(forecast.rename(msl="q700"), toy_store)


def test_the_report_has_scores_and_pictures(toy_store, forecast, tmp_path):
    forecast = forecast[["t850"]]
    scores = score(forecast, toy_store)
    files = save_report(tmp_path / "report", forecast, scores, toy_store)
    assert [file.name for file in files] == [
        "scores.nc",
        "t850_maps_024h.png",
        "t850_maps_048h.png",
        "t850_scores.png",
    ]
    assert all(file.stat().st_size > 5_000 for file in files)
    with xr.open_dataset(files[0], engine="h5netcdf") as stored:
        xr.testing.assert_allclose(stored["fair_crps"], scores["fair_crps"])
