import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import gamma

from diffusion_lab.verification import PowerSpectrum, by_lead_time, case_means, fields_like, summarise
from diffusion_lab.verification.ensemble import area_means
from diffusion_lab.verification.events import Event
from diffusion_lab.verification.forecasts import energy_score

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


def test_nodes_where_a_member_is_missing_count_for_no_score():
    forecast, truth = forecast_and_truth(cells=30)
    gaps, cells = forecast.copy(deep=True), [0, 1, 2, 3, 4]
    gaps["t850"][:, :, :, :3] = np.nan  # as over land
    gaps["t850"][:, :, 1, 3:5] = np.nan  # one member alone
    kept = {"cell": np.setdiff1d(np.arange(30), cells)}
    weights = np.random.default_rng(1).uniform(size=30)

    def scores(forecast, truth, weights):
        events = {"warm": Event(truth * 0 + 270)}
        others = {"persistence": truth + 1}
        return case_means(forecast, truth, weights, others, climatology=truth * 0 + 270, events=events)

    expected = scores(forecast.isel(kept), truth.isel(kept), weights[kept["cell"]]).sel(variable="t850")
    xr.testing.assert_allclose(scores(gaps, truth, weights).sel(variable="t850"), expected)
    fast = area_means(
        torch.from_numpy(gaps["t850"].values)[..., None],
        torch.from_numpy(truth["t850"].values)[..., None],
        torch.from_numpy(weights),
    )
    for name, values in fast.items():
        np.testing.assert_allclose(values[..., 0], expected[name], err_msg=name)


def test_averages_come_before_roots_and_ratios():
    # One cell, two starts: members 0 and 2 with truth 3, then members 0 and 4 with truth 2.
    forecast = dataset(
        {"t": np.array([[[[0.0], [2.0]]], [[[0.0], [4.0]]]])},
        ("start", "lead_time", "ensemble", "cell"),
        STARTS[:2],
    )
    truth = dataset({"t": np.array([[[3.0]], [[2.0]]])}, ("start", "lead_time", "cell"), STARTS[:2])
    persistence = dataset({"t": np.array([[[1.0]], [[6.0]]])}, ("start", "lead_time", "cell"), STARTS[:2])
    scores = summarise(case_means(forecast, truth, [1.0], {"persistence": persistence}))
    expected = {
        "fair_crps": (1 + 0) / 2,  # 2 - 2/2 and 2 - 4/2
        "rmse": np.sqrt((4 + 0) / 2),
        "spread": np.sqrt((2 + 8) / 2),
        "spread_skill": np.sqrt(1.5 * 5 / 2),
        "bias": (-2 + 0) / 2,
        "energy_score": (1 + 0) / 2,  # of one cell: the CRPS
        "persistence_mae": (2 + 4) / 2,
        "persistence_crpss": 1 - 0.5 / 3,
        "persistence_rmse": np.sqrt((4 + 16) / 2),
    }
    further = {"rank_histogram", "reliability_index", "rank_p"}
    assert {name for name in scores.data_vars if not name.endswith("_interval")} == set(expected) | further
    for name, value in expected.items():
        assert scores[name].sel(variable="t").item() == pytest.approx(value), name
    assert scores.attrs == {"num_members": 2, "num_starts": 2}
    assert scores["units"].sel(variable="t").item() == "K"


def test_exchangeable_truth_has_spread_skill_one():
    forecast, truth = forecast_and_truth(members=10, cells=20_000)
    scores = summarise(case_means(forecast, truth, np.ones(20_000), {}))
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
    xr.testing.assert_allclose(
        summarise(case_means(lazy, truth, np.ones(30), {})),
        summarise(case_means(forecast, truth, np.ones(30), {})),
    )


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


def test_the_rank_histogram_is_averaged_over_starts():
    # Members 1 and 3; a truth of 0, then of 4 and 3: ranks 1, then 3, and 2 and 3 shared.
    members = np.tile([[1.0], [3.0]], (2, 1, 1, 2))
    forecast = dataset({"t": members}, ("start", "lead_time", "ensemble", "cell"), STARTS[:2])
    truth = dataset({"t": np.array([[[0.0, 0.0]], [[4.0, 3.0]]])}, ("start", "lead_time", "cell"), STARTS[:2])
    histogram = summarise(case_means(forecast, truth, [1.0, 3.0], {}))["rank_histogram"]
    np.testing.assert_allclose(histogram.sel(variable="t").isel(lead_time=0), [0.5, 0.1875, 0.3125])
    np.testing.assert_array_equal(histogram["rank"], [1, 2, 3])


def test_the_energy_score_of_many_cells_is_unbiased_for_its_closed_form():
    """Of x, y ~ N(0, 1) in n cells, E|x - y| = √2 E|x|, E|x| = √2 Γ((n + 1)/2) / Γ(n/2) / √n."""
    rng = np.random.default_rng(0)
    fields = xr.DataArray(rng.normal(size=(4000, 1, 6, 5)), dims=("start", "lead_time", "ensemble", "cell"))
    truth = fields.isel(ensemble=0, drop=True)
    score = energy_score(
        fields.isel(ensemble=slice(1, None)), truth, xr.DataArray(np.full(5, 7.0), dims="cell")
    )
    exact = np.sqrt(0.5) * np.sqrt(2) * gamma(3) / gamma(2.5) / np.sqrt(5)
    assert score.mean().item() == pytest.approx(exact, abs=4 * score.std().item() / np.sqrt(4000))


def test_the_energy_score_of_one_known_cell_is_its_crps():
    forecast, truth = forecast_and_truth(cells=3)
    truth["t850"][..., 1:] = np.nan
    means = case_means(forecast, truth, [2.0, 1.0, 1.0], {}).sel(variable="t850")
    np.testing.assert_allclose(means["energy_score"], means["fair_crps"], rtol=1e-12)


def test_ensemble_baselines_are_scored_as_ensembles():
    forecast, truth = forecast_and_truth()
    means = case_means(forecast, truth, np.ones(30), {"twin": forecast, "mean": forecast.mean("ensemble")})
    scores = summarise(means)
    xr.testing.assert_allclose(scores["twin_fair_crps"], scores["fair_crps"].rename("twin_fair_crps"))
    np.testing.assert_allclose(scores["twin_crpss"], 0, atol=1e-12)
    np.testing.assert_allclose(scores["mean_rmse"], scores["rmse"])
    assert "mean_fair_crps" not in scores


def test_anomaly_correlation_is_that_of_anomalies():
    forecast, truth = forecast_and_truth()
    climatology, weights = truth - 1.5 * truth + 3, np.random.default_rng(3).uniform(size=30)
    means = case_means(forecast, truth, weights, {}, climatology=climatology).sel(variable="t2m")
    anomalies = [(field - climatology)["t2m"].values[1, 0] for field in (forecast.mean("ensemble"), truth)]
    a, b = (anomaly - np.average(anomaly, weights=weights) for anomaly in anomalies)
    expected = np.average(a * b, weights=weights) / np.sqrt(
        np.average(a**2, weights=weights) * np.average(b**2, weights=weights)
    )
    assert means["anomaly_correlation"][1, 0].item() == pytest.approx(expected, rel=1e-9)


def test_events_below_are_counted_below():
    forecast, truth = forecast_and_truth(decimals=0)
    events = {"high": Event(truth * 0 + 270), "low": Event(truth * 0 + 270, above=False)}
    means = case_means(forecast, truth, np.ones(30), {}, events=events).sel(variable="t850").isel(start=0)
    cold = (truth["t850"][0, 0] < 270).mean().item()
    warm = (truth["t850"][0, 0] > 270).mean().item()
    happened = means["event_happened"].isel(lead_time=0).sum("count")
    assert happened.sel(event=["low", "high"]).values.tolist() == pytest.approx([cold, warm])
    none_below = (forecast["t850"][0, 0] >= 270).all("ensemble").mean().item()
    assert means["event_share"].sel(event="low").isel(lead_time=0, count=0).item() == pytest.approx(
        none_below
    )


def test_powers_are_those_of_members_mean_and_truth():
    latitude, longitude = 180 * np.random.default_rng(0).uniform(size=(2, 60)) - 90
    longitude *= 2
    wave = np.sin(np.deg2rad(latitude))  # mean square 1/3
    members = np.stack([3 * wave, -wave])[None, None]
    dims = ("start", "lead_time", "ensemble", "cell")
    forecast = dataset({"t": members}, dims, STARTS[:1])
    truth = dataset({"t": 2 * wave[None, None]}, ("start", "lead_time", "cell"), STARTS[:1])
    scores = summarise(
        case_means(forecast, truth, np.ones(60), {}, spectrum=PowerSpectrum(latitude, longitude, 2))
    )
    at = scores.sel(variable="t", wavenumber=1).isel(lead_time=0)
    assert at["power"].item() == pytest.approx((9 + 1) / 2 / 3)
    assert at["mean_power"].item() == pytest.approx(1 / 3)
    assert at["truth_power"].item() == pytest.approx(4 / 3)
    assert at["power_ratio"].item() == pytest.approx(5 / 4)


def test_powers_are_compared_on_the_same_starts():
    latitude = np.rad2deg(np.arcsin(np.linspace(-0.98, 0.98, 60)))
    longitude = 137.50776 * np.arange(60) % 360
    wave = np.sin(np.deg2rad(latitude))
    sizes = np.array([1.0, 2.0, 5.0])[:, None, None]
    truth = dataset({"t": sizes * wave}, ("start", "lead_time", "cell"))
    dims = ("start", "lead_time", "ensemble", "cell")
    forecast = dataset({"t": np.stack([sizes * wave, sizes * wave], axis=2)}, dims)
    truth["t"][2, 0, 7] = np.nan
    means = case_means(forecast, truth, np.ones(60), {}, spectrum=PowerSpectrum(latitude, longitude, 2))
    at = summarise(means).sel(variable="t", wavenumber=1).isel(lead_time=0)
    assert at["power"].item() == pytest.approx((1 + 4) / 2 / 3)
    assert at["power_ratio"].item() == pytest.approx(1)
    assert at["mean_power"].item() == pytest.approx(at["truth_power"].item())


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
