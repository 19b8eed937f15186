import numpy as np
import pytest
import torch
import xarray as xr

from diffusion_lab.verification import (
    by_lead_time,
    case_means,
    fields_like,
    rank_histogram,
    summarise,
    verify,
)
from diffusion_lab.verification.ensemble import area_means

DAY = np.timedelta64(86_400, "s")
STARTS = np.datetime64("2025-01-01T00", "s") + 14 * DAY * np.arange(3)


def dataset(fields, dims, starts=STARTS):
    """A forecast or truth of daily leads from (start, lead_time, …, cell) fields by name."""
    cells, leads = next(iter(fields.values())).shape[-1], next(iter(fields.values())).shape[1]
    return xr.Dataset(
        {name: (dims, field, {"units": "K"}) for name, field in fields.items()},
        coords={
            "lead_time": DAY * np.arange(1, leads + 1),
            "forecast_reference_time": ("start", starts),
            "latitude": ("cell", np.linspace(-60, 60, cells)),
            "longitude": ("cell", np.linspace(0, 300, cells)),
        },
    )


def forecast_and_truth(members=4, cells=30, decimals=12):
    """Draws of which one is the truth, so that it is exchangeable with the members."""
    rng = np.random.default_rng(0)
    draws = {
        name: (270 + rng.normal(size=(3, 2, 1, cells)) + rng.normal(size=(3, 2, members + 1, cells))).round(
            decimals
        )
        for name in ("t850", "t2m")
    }
    forecast = dataset({k: v[:, :, 1:] for k, v in draws.items()}, ("start", "lead_time", "ensemble", "cell"))
    return forecast, dataset({k: v[:, :, 0] for k, v in draws.items()}, ("start", "lead_time", "cell"))


def one_start(forecast, index):
    """The layout of a forecast of one start: a scalar start, valid times as the dimension."""
    one = forecast.isel(start=index).assign_coords(
        time=("lead_time", STARTS[index] + forecast.lead_time.values)
    )
    return one.swap_dims(lead_time="time")


@pytest.mark.parametrize("members", [2, 7])
@pytest.mark.parametrize("decimals", [0, 12])  # rounded to whole numbers, members and truth tie
@pytest.mark.parametrize("starts", [1, 3])
def test_torch_and_labelled_means_agree(members, decimals, starts):
    forecast, truth = forecast_and_truth(members, decimals=decimals)
    truth["t850"][0, 0, 3:9] = np.nan
    forecast, truth = forecast.isel(start=slice(starts)), truth.isel(start=slice(starts))
    weights = np.random.default_rng(1).uniform(size=30)
    means = case_means(forecast, truth, weights, {})
    for name in ("t850", "t2m"):
        fast = area_means(
            torch.from_numpy(forecast[name].values)[..., None],
            torch.from_numpy(truth[name].values)[..., None],
            torch.from_numpy(weights),
        )
        for score, values in fast.items():
            np.testing.assert_allclose(
                means[score].sel(variable=name), values[..., 0], rtol=1e-9, err_msg=score
            )


def test_averages_come_before_roots_and_ratios():
    # One cell, two starts: members 0 and 2 with truth 3, then members 0 and 4 with truth 2.
    forecast = dataset(
        {"t": np.array([[[[0.0], [2.0]]], [[[0.0], [4.0]]]])},
        ("start", "lead_time", "ensemble", "cell"),
        STARTS[:2],
    )
    truth = dataset({"t": np.array([[[3.0]], [[2.0]]])}, ("start", "lead_time", "cell"), STARTS[:2])
    persistence = dataset({"t": np.array([[[1.0]], [[6.0]]])}, ("start", "lead_time", "cell"), STARTS[:2])
    scores = verify(forecast, truth, [1.0], {"persistence": persistence})
    expected = {
        "fair_crps": (1 + 0) / 2,  # 2 - 2/2 and 2 - 4/2
        "rmse": np.sqrt((4 + 0) / 2),
        "spread": np.sqrt((2 + 8) / 2),
        "spread_skill": np.sqrt(1.5 * 5 / 2),
        "bias": (-2 + 0) / 2,
        "persistence_mae": (2 + 4) / 2,
        "persistence_rmse": np.sqrt((4 + 16) / 2),
    }
    assert set(scores.data_vars) == set(expected)
    for name, value in expected.items():
        assert scores[name].sel(variable="t").item() == pytest.approx(value), name
    assert scores.attrs == {"num_members": 2, "num_starts": 2}
    assert scores["units"].sel(variable="t").item() == "K"


def test_exchangeable_truth_has_spread_skill_one():
    forecast, truth = forecast_and_truth(members=10, cells=20_000)
    scores = verify(forecast, truth, np.ones(20_000), {})
    np.testing.assert_allclose(scores["spread_skill"], 1.0, atol=0.02)
    # The expected CRPS of a distribution N(·, 1) is 1/√π.
    np.testing.assert_allclose(scores["fair_crps"], np.pi**-0.5, atol=0.01)


def test_scores_of_one_start_are_those_of_its_row():
    forecast, truth = forecast_and_truth()
    weights = np.ones(30)
    all_starts = case_means(forecast, truth, weights, {})
    one = case_means(one_start(forecast, 1), one_start(truth, 1), weights, {})
    xr.testing.assert_allclose(one, all_starts.isel(start=[1]))
    xr.testing.assert_allclose(summarise(one), summarise(all_starts.isel(start=[1])))
    together = xr.concat([by_lead_time(one_start(forecast, index)) for index in range(3)], "start")
    xr.testing.assert_allclose(case_means(together, truth, weights, {}), all_starts)


def test_lazy_forecasts_give_the_same_scores(tmp_path):
    forecast, truth = forecast_and_truth()
    forecast.to_zarr(tmp_path / "forecast.zarr", zarr_format=2)
    lazy = xr.open_zarr(tmp_path / "forecast.zarr", chunks={})[list(forecast.data_vars)]
    xr.testing.assert_allclose(verify(lazy, truth, np.ones(30), {}), verify(forecast, truth, np.ones(30), {}))


def test_fields_are_those_of_the_valid_times():
    forecast, _ = forecast_and_truth()
    calls = []

    def hours(dates, names):
        calls.append(dates)
        value = (dates - STARTS[0]) / np.timedelta64(1, "h")
        return value[:, None, None] + 1000.0 * np.arange(len(names))[None, :, None] + np.zeros(30)

    truth = fields_like(forecast, hours)
    assert truth["t850"].dims == ("start", "lead_time", "cell")
    np.testing.assert_array_equal(truth["t850"][:, :, 0], [[24, 48], [360, 384], [696, 720]])
    np.testing.assert_array_equal(truth["t2m"][:, :, 5], [[1024, 1048], [1360, 1384], [1696, 1720]])
    persistence = fields_like(forecast, hours, at_start=True)
    np.testing.assert_array_equal(persistence["t850"][:, :, 0], [[0, 0], [336, 336], [672, 672]])
    np.testing.assert_array_equal(calls[1], STARTS)  # each date is read once
    np.testing.assert_array_equal(fields_like(one_start(forecast, 2), hours)["t850"][0, :, 0], [696, 720])


def test_ranks_by_hand_with_ties():
    # Two members 1 and 3; truths 0, 2, 4 take ranks 1, 2, 3, and a truth of 3 shares ranks 2 and 3.
    forecast = dataset(
        {"t": np.tile([[1.0], [3.0]], (1, 1, 1, 4))}, ("start", "lead_time", "ensemble", "cell"), STARTS[:1]
    )
    truth = dataset({"t": np.array([[[0.0, 2.0, 4.0, 3.0]]])}, ("start", "lead_time", "cell"), STARTS[:1])
    histogram = rank_histogram(forecast, truth, [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(histogram["rank"], [1, 2, 3])
    np.testing.assert_allclose(histogram.sel(variable="t").isel(lead_time=0), [0.1, 0.4, 0.5])


def test_rank_histogram_of_an_exchangeable_truth_is_flat():
    forecast, truth = forecast_and_truth(members=4, cells=20_000)
    histogram = rank_histogram(forecast, truth, np.ones(20_000))
    # 60 000 cases: a frequency of 1/5 has a standard error of √(0.16/60 000) = 0.0016.
    np.testing.assert_allclose(histogram, 0.2, atol=4 * 0.0016)
    np.testing.assert_allclose(histogram.sum("rank"), 1.0)


def test_what_does_not_fit_is_refused_by_name():
    forecast, truth = forecast_and_truth()
    with pytest.raises(KeyError, match=r"climatology lacks the forecast's variables \['t2m'\]"):
        case_means(forecast, truth, np.ones(30), {"climatology": truth[["t850"]]})
    with pytest.raises(ValueError, match=r"weights must be of shape \(30,\)"):
        case_means(forecast, truth, np.ones(29), {})
    with pytest.raises(ValueError, match="different starts"):
        case_means(
            forecast, truth.assign_coords(forecast_reference_time=("start", STARTS + DAY)), np.ones(30), {}
        )
    with pytest.raises(ValueError, match="lead_time"):
        case_means(forecast, truth.isel(lead_time=[0]), np.ones(30), {})
    with pytest.raises(KeyError, match="needs a coordinate 'forecast_reference_time'"):
        by_lead_time(forecast.drop_vars("forecast_reference_time"))
