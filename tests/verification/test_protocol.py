from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from diffusion_lab.graphs import area_weights
from diffusion_lab.sampling import PRESETS, SamplingSettings
from diffusion_lab.stores.climatology import climatology_of
from diffusion_lab.verification import (
    baselines_of,
    deterministic_forecast,
    forecast_ensembles,
    run_protocol,
    score,
    truth_of,
)
from diffusion_lab.verification.baselines import climatological_ensemble, extremes
from diffusion_lab.verification.summary import names_of_baselines

DAY = np.timedelta64(1, "D")
STARTS = np.array(["2024-12-01", "2025-01-15"], "datetime64[s]")


class Echo:
    """A forecaster whose members are the start's state plus lead times and member number."""

    step = DAY.astype("timedelta64[s]")
    settings = PRESETS["guide"]

    def __init__(self, store):
        self.store, self.calls, self.model = store, [], torch.nn.Linear(1, 1)

    def reader(self, data):
        return SimpleNamespace(store=data)

    def rollout(self, date, steps, members, seed, settings, data):
        self.calls.append((date, steps, members, seed, settings, data))
        return SimpleNamespace(dataset=lambda: self.made(date, steps, members))

    def made(self, date, steps, members):
        leads = np.arange(1, steps + 1)
        numbers = np.arange(members) if isinstance(members, int) else np.asarray(members)
        offsets = 10.0 * leads[:, None, None] + numbers[:, None]
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
    return forecast_ensembles(Echo(toy_store), STARTS, 2, 3, data=toy_store, progress=False)


def test_forecasts_of_several_starts_stand_side_by_side(toy_store, forecast):
    assert forecast["t850"].dims == ("start", "lead_time", "ensemble", "cell")
    np.testing.assert_array_equal(forecast["forecast_reference_time"], STARTS)
    start = toy_store.read(toy_store.index(STARTS[1]), ["msl"])[0, 0, 0]
    np.testing.assert_allclose(forecast["msl"][1, 0, 2], start + 12)


def test_settings_reach_the_forecaster(toy_store):
    echo = Echo(toy_store)
    settings = echo.settings.override({"num_steps": 3}, {"S_churn": 1.0})
    forecast_ensembles(echo, STARTS, 2, 3, seed=5, settings=settings, data=toy_store, progress=False)
    assert echo.calls == [(start, 2, 3, 5, settings, toy_store) for start in STARTS]


def test_truth_is_what_the_store_holds_at_valid_times(toy_store, forecast):
    truth = truth_of(forecast, toy_store)
    stored = toy_store.read(toy_store.index("2025-01-17"), ["msl"])[0, 0, 0]
    np.testing.assert_array_equal(truth["msl"][1, 1], stored)


def test_baselines_are_the_start_and_the_season(toy_store, forecast):
    baselines = baselines_of(forecast, toy_store)
    assert list(baselines) == ["persistence", "climatology", "climatological_ensemble"]
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


def test_the_climatological_ensemble_is_the_weather_of_other_years(toy_store, forecast):
    climatology = climatology_of(toy_store)
    ensemble = climatological_ensemble(forecast.isel(start=[1]), toy_store, climatology)["t850"]
    assert ensemble.dims == ("start", "lead_time", "ensemble", "cell")
    # Within 45 days of 16 January are, in 2024, 1 January to 1 March and 2 to 31 December: 91 days, of which
    # are taken evenly.
    days = np.arange("2024-01-01", "2024-03-02", dtype="datetime64[D]")
    days = np.append(days, np.arange("2024-12-02", "2025-01-01", dtype="datetime64[D]"))
    chosen = days[np.linspace(0, 90, 30).round().astype(int)].astype("datetime64[s]")
    column = climatology.variables.index("t850")
    states = toy_store.read([toy_store.index(day) for day in chosen], ["t850"])[:, 0, 0]
    normal = climatology.evaluate(chosen)[:, column]
    today = climatology.evaluate(np.array(["2025-01-16"], "datetime64[s]"))[0, column]
    np.testing.assert_allclose(ensemble[0, 0], states - normal + today, atol=1e-3)


def test_extremes_are_tenths_of_the_climatological_ensemble(toy_store, forecast):
    ensemble = baselines_of(forecast, toy_store)["climatological_ensemble"]
    low, high = extremes(ensemble).values()
    assert (low.above, high.above) == (False, True)
    # Of n members, 1 + 0.1 (n - 1), rounded down, are at or below the quantile 0.1 by linear interpolation.
    members = ensemble.sizes["ensemble"]
    beyond = (1 + (members - 1) // 10) / members
    assert (ensemble["msl"] <= low.threshold["msl"]).mean().item() == pytest.approx(beyond, abs=1e-3)
    assert (ensemble["msl"] >= high.threshold["msl"]).mean().item() == pytest.approx(beyond, abs=1e-3)


def test_years_without_others_have_no_climatological_ensemble(toy_store, forecast):
    summer = forecast.isel(start=[0]).assign_coords(
        forecast_reference_time=("start", np.array(["2024-07-01"], "datetime64[ns]"))
    )
    assert "climatological_ensemble" not in baselines_of(summer, toy_store)


def test_what_some_starts_lack_is_compared_with_none(toy_store):
    starts = np.array(["2024-07-01", "2025-01-15"], "datetime64[s]")  # of July there is no other year
    forecast = forecast_ensembles(Echo(toy_store), starts, 1, 2, data=toy_store, progress=False)
    assert "climatological_ensemble_crpss" in score(forecast.isel(start=[1]), toy_store)
    scores = score(forecast, toy_store)
    assert names_of_baselines(scores) == ["persistence", "climatology"]
    assert "brier" not in scores


def test_forecasts_are_kept_and_taken_up_again(toy_store, tmp_path):
    echo = Echo(toy_store)
    options = {"data": toy_store, "folder": tmp_path, "progress": False}
    first = forecast_ensembles(echo, STARTS[:1], 1, 2, **options)
    both = forecast_ensembles(echo, STARTS, 1, 2, **options)
    assert [call[0] for call in echo.calls] == list(STARTS)
    xr.testing.assert_equal(both.isel(start=[0]).compute(), first.compute())
    in_memory = forecast_ensembles(echo, STARTS, 1, 2, data=toy_store, progress=False)
    xr.testing.assert_equal(both.compute(), in_memory)
    echo.calls.clear()
    forecast_ensembles(echo, STARTS[:1], 1, 2, seed=1, **options)
    forecast_ensembles(echo, STARTS[:1], 1, 2, settings=echo.settings.override({"num_steps": 2}), **options)
    echo.model = torch.nn.Linear(1, 1)
    forecast_ensembles(echo, STARTS[:1], 1, 2, **options)
    assert len(echo.calls) == 3  # another seed, other settings, other weights


def test_a_forecast_that_was_cut_short_is_made_again(toy_store, tmp_path):
    echo = Echo(toy_store)
    options = {"data": toy_store, "folder": tmp_path, "progress": False}
    forecast_ensembles(echo, STARTS[:1], 1, 2, **options)
    (whole,) = tmp_path.rglob("*.nc")
    whole.rename(whole.with_suffix(".partial"))
    forecast_ensembles(echo, STARTS[:1], 1, 2, **options)
    assert len(echo.calls) == 2
    assert [path.name for path in tmp_path.rglob("*.*")] == ["2024-12-01T0000.nc"]


def test_the_deterministic_forecast_is_one_call_of_one_member(toy_store):
    echo = Echo(toy_store)
    churned = echo.settings.override(sampler_params={"S_churn": 1.0})
    forecast, scores = run_protocol(
        echo, STARTS, 2, 3, seed=5, settings=churned, data=toy_store, progress=False
    )
    assert forecast.sizes["ensemble"] == 3
    single, *_ = echo.calls
    assert single[1:4] == (2, [0], 5)
    # Member 0 is the start's state plus ten a day, so its error is that of persistence plus ten a day.
    weights, errors = area_weights(toy_store.latitudes, toy_store.longitudes), []
    for start in STARTS:
        first = toy_store.index(start)
        states = toy_store.read([first, first + 2], ["t850"])[:, 0, 0].astype(np.float64)
        errors.append(weights @ np.abs(states[0] + 20 - states[1]))
    at = scores.sel(variable="t850").isel(lead_time=1)
    assert at["deterministic_mae"].item() == pytest.approx(np.mean(errors), rel=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule_type": "karras", "num_steps": 9, "sigma_max": 60.0, "sigma_min": 0.02},
        {"schedule_type": "manual", "sigmas": [60.0, 3.0, 0.1]},
    ],
)
def test_the_deterministic_forecast_is_the_denoised_at_sigma_max_whatever_the_defaults(toy_store, schedule):
    echo, seen = Echo(toy_store), []
    churn = {"sampler": "heun", "S_churn": 40.0, "S_noise": 1.1}
    echo.settings = SamplingSettings(schedule, churn)
    deterministic_forecast(echo, STARTS[:1], 1, data=toy_store, progress=False)

    def denoiser(y, sigma):
        seen.append((y, float(sigma)))
        return torch.full_like(y, 7.0)

    start = torch.randn(1, 1, 1, 5, 2, generator=torch.Generator().manual_seed(0))
    sampled = echo.calls[0][4].sample(denoiser, lambda draw: start)
    assert torch.equal(sampled, torch.full_like(start, 7.0))
    ((y, sigma),) = seen
    assert sigma == pytest.approx(60)
    torch.testing.assert_close(y.float(), 60 * start)
