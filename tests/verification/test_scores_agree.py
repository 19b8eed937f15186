"""Every score of a labelled forecast against its definition, written out in NumPy or taken from `scores`.

Each in the cases that go wrong: two members, ties of members and truth, masked nodes, a single start date.
"""

import operator
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from scores.probability import brier_score, brier_score_for_ensemble, rank_histogram, roc_curve_data

from diffusion_lab.verification import case_means, summarise
from diffusion_lab.verification.ensemble import area_means, ensemble_scores
from diffusion_lab.verification.events import Event

CASES = {  # members, decimals, nodes masked, starts
    "two members": (2, 12, False, 3),
    "ties": (5, 0, False, 3),
    "masked nodes": (5, 12, True, 3),
    "one start": (5, 12, False, 1),
    "all of them": (2, 0, True, 1),
}
LEADS, CELLS, THRESHOLD = 2, 60, 281.0


def labelled(name, values):
    dims = ("start", "lead_time", *(("ensemble",) if values.ndim == 4 else ()), "cell")
    coords = {
        "lead_time": np.timedelta64(1, "D") * np.arange(1, LEADS + 1),
        "forecast_reference_time": (
            "start",
            np.datetime64("2025-01-01", "s") + np.timedelta64(14, "D") * np.arange(len(values)),
        ),
    }
    return xr.Dataset({name: (dims, values, {"units": "K"})}, coords)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """Fields as arrays, weights, and the scores by `case_means` and `summarise`."""
    members, decimals, masked, starts = CASES[request.param]
    rng = np.random.default_rng(members)
    shape = (starts, LEADS, 2 * members + 4, CELLS)
    draws = (280 + rng.normal(size=(starts, LEADS, 1, CELLS)) + rng.normal(size=shape)).round(decimals)
    forecast, twin = draws[:, :, :members], draws[:, :, members : 2 * members + 1]
    truth, persistence, climatology = np.moveaxis(draws[:, :, 2 * members + 1 :], 2, 0).copy()
    if masked:
        truth[..., :7] = np.nan  # always, such as land
        truth[0, 0, 20:25] = np.nan  # and now and then
    weights = rng.uniform(0.2, 1, size=CELLS)
    baselines = {"persistence": labelled("t", persistence), "twin": labelled("t", twin)}
    events = {"warm": Event(labelled("t", np.full_like(truth, THRESHOLD)))}
    scores = summarise(
        case_means(
            labelled("t", forecast),
            labelled("t", truth),
            weights,
            baselines,
            climatology=labelled("t", climatology),
            events=events,
        )
    )
    fields = {"forecast": forecast, "twin": twin, "truth": truth, "persistence": persistence}
    return SimpleNamespace(
        **fields, climatology=climatology, weights=weights, scores=scores.sel(variable="t")
    )


def averaged(case, score):
    """Mean over starts of `score(start and lead, weights of the known nodes)`, which sum to 1: (lead,)."""
    means = np.empty(case.truth.shape[:2])
    for at in np.ndindex(means.shape):
        weights = np.where(np.isfinite(case.truth[at]), case.weights, 0)
        means[at] = score(at, weights / weights.sum())
    return means.mean(axis=0)


def over_nodes(weights, field):
    return weights @ np.where(weights > 0, field, 0)


def fair_crps(case, ensemble):
    def score(at, weights):
        members, truth = ensemble[at], case.truth[at]
        pairs = sum(abs(a - b) for a, b in product(members, members)) / 2
        return over_nodes(weights, abs(members - truth).mean(0) - pairs / (len(members) * (len(members) - 1)))

    return averaged(case, score)


def mean_squared(case, error):
    return averaged(case, lambda at, weights: over_nodes(weights, error(at) ** 2))


def anomaly_correlation(at, weights, case):
    a, b = (
        field - case.climatology[at] for field in (case.forecast[at].mean(0), np.nan_to_num(case.truth[at]))
    )
    a, b = a - weights @ a, b - weights @ b
    return weights @ (a * b) / np.sqrt((weights @ a**2) * (weights @ b**2))


def energy(at, weights, case):
    members, truth = case.forecast[at], np.nan_to_num(case.truth[at])
    to_truth = np.mean([np.sqrt(weights @ (x - truth) ** 2) for x in members])
    pairs = [np.sqrt(weights @ (x - y) ** 2) for x, y in product(members, members)]
    return to_truth - sum(pairs) / (len(members) * (len(members) - 1)) / 2


def variance(case):
    return averaged(case, lambda at, weights: over_nodes(weights, case.forecast[at].var(0, ddof=1)))


def error_of_mean(case):
    return mean_squared(case, lambda at: case.forecast[at].mean(0) - case.truth[at])


def absolute_error(case):
    return averaged(case, lambda at, w: over_nodes(w, abs(case.persistence[at] - case.truth[at])))


def spread_skill(case):
    members = case.forecast.shape[2]
    return np.sqrt((members + 1) / members * variance(case) / error_of_mean(case))


DEFINITIONS = {
    "fair_crps": lambda case: fair_crps(case, case.forecast),
    "persistence_crpss": lambda case: 1 - fair_crps(case, case.forecast) / absolute_error(case),
    "persistence_mae": absolute_error,
    "persistence_rmse": lambda c: np.sqrt(mean_squared(c, lambda at: c.persistence[at] - c.truth[at])),
    "twin_fair_crps": lambda case: fair_crps(case, case.twin),
    "twin_crpss": lambda case: 1 - fair_crps(case, case.forecast) / fair_crps(case, case.twin),
    "twin_rmse": lambda c: np.sqrt(mean_squared(c, lambda at: c.twin[at].mean(0) - c.truth[at])),
    "rmse": lambda case: np.sqrt(error_of_mean(case)),
    "spread": lambda case: np.sqrt(variance(case)),
    "spread_skill": spread_skill,
    "bias": lambda c: averaged(c, lambda at, w: over_nodes(w, c.forecast[at].mean(0) - c.truth[at])),
    "anomaly_correlation": lambda case: averaged(case, lambda at, w: anomaly_correlation(at, w, case)),
    "energy_score": lambda case: averaged(case, lambda at, w: energy(at, w, case)),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_score_is_what_its_definition_says(case, name):
    np.testing.assert_allclose(case.scores[name], DEFINITIONS[name](case), rtol=1e-9, atol=1e-9)


def test_no_score_is_left_untested(case):
    of_events = {"event_share", "event_happened", "brier", "brier_skill", "roc_area"}
    tested = DEFINITIONS.keys() | of_events | {"rank_histogram", "reliability_index", "rank_p"}
    assert {name for name in case.scores.data_vars if not name.endswith("_interval")} == tested


@pytest.mark.parametrize("name", ["fair_crps", "rmse", "spread", "spread_skill"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_fast_path_has_the_same_scores(case, name, dtype):
    """In float32 of fields about zero: of values near 280 it keeps but five digits after the first."""
    forecast, truth = (
        torch.from_numpy(field - 280)[..., None].to(dtype) for field in (case.forecast, case.truth)
    )
    means = area_means(forecast, truth, torch.from_numpy(case.weights))
    scores = ensemble_scores({key: mean.mean(0) for key, mean in means.items()}, forecast.shape[2])
    np.testing.assert_allclose(scores[name][:, 0], DEFINITIONS[name](case), rtol=1e-6, atol=1e-6)


def arrays(case):
    """Forecast and truth for the library, and weights that count all starts alike."""
    known = np.isfinite(case.truth)
    weights = np.where(known, case.weights, 0)
    weights = weights / weights.sum(-1, keepdims=True)
    dims = ("start", "lead_time", "cell")
    return (
        xr.DataArray(case.forecast, dims=(*dims[:2], "ensemble", "cell")),
        xr.DataArray(case.truth, dims=dims),
        xr.DataArray(weights / len(weights), dims=dims),
    )


def test_rank_histograms_are_the_librarys(case):
    forecast, truth, _ = arrays(case)
    weights = xr.DataArray(case.weights, dims="cell")
    expected = rank_histogram(
        forecast, truth, "ensemble", preserve_dims=["start", "lead_time"], weights=weights
    )
    expected = expected.mean("start").transpose("lead_time", "rank")
    np.testing.assert_allclose(case.scores["rank_histogram"], expected, atol=1e-9)
    flat = 1 / (case.forecast.shape[2] + 1)
    np.testing.assert_allclose(case.scores["reliability_index"], abs(expected - flat).sum("rank"), atol=1e-9)


def test_flatness_is_tested_against_all_choices_of_a_truth(case):
    """Each of the fields of each start in the truth's place: (M + 1)^starts histograms."""
    starts, _, members, _ = case.forecast.shape
    fields = np.concatenate([case.truth[:, :, None], case.forecast], axis=2)
    known = np.isfinite(case.truth)[:, :, None]
    tables = []
    for candidate in range(members + 1):
        others = xr.DataArray(
            np.delete(fields, candidate, axis=2), dims=("start", "lead_time", "ensemble", "cell")
        )
        chosen = np.where(known[:, :, 0], fields[:, :, candidate], np.nan)
        table = rank_histogram(
            others,
            xr.DataArray(chosen, dims=("start", "lead_time", "cell")),
            "ensemble",
            preserve_dims=["start", "lead_time"],
            weights=xr.DataArray(case.weights, dims="cell"),
        )
        tables.append(table.transpose("start", "lead_time", "rank").values)
    tables = np.stack(tables)
    choices = np.array(list(product(range(members + 1), repeat=starts)))
    histograms = tables[choices, np.arange(starts)].mean(axis=1)  # the first choice is the truth everywhere
    distance = ((histograms - 1 / (members + 1)) ** 2).sum(-1)
    exact = (distance >= distance[0] * (1 - 1e-9)).mean(axis=0)
    # 999 choices at random: within four standard errors, and one for the truth itself.
    np.testing.assert_allclose(case.scores["rank_p"], exact, atol=4 * 0.5 / np.sqrt(999) + 1e-3)


def test_event_scores_are_the_librarys(case):
    forecast, truth, weights = arrays(case)
    scores = case.scores.sel(event="warm")
    happened = (truth > THRESHOLD).where(truth.notnull()).astype(float)
    probability = (forecast > THRESHOLD).mean("ensemble")
    for lead in range(LEADS):
        at = scores.isel(lead_time=lead)
        chosen = {"lead_time": lead}
        options = {"weights": weights.isel(chosen)}
        brier = brier_score_for_ensemble(
            forecast.isel(chosen),
            truth.isel(chosen),
            "ensemble",
            THRESHOLD,
            event_threshold_operator=operator.gt,
            **options,
        )
        assert at["brier"].item() == pytest.approx(brier.item(), abs=1e-9)
        frequency = (happened.isel(chosen) * weights.isel(chosen)).sum()
        climate = brier_score(
            xr.full_like(happened.isel(chosen), frequency), happened.isel(chosen), **options
        )
        assert at["brier_skill"].item() == pytest.approx(1 - brier.item() / climate.item(), abs=1e-9)
        thresholds = np.arange(forecast.sizes["ensemble"] + 1) / forecast.sizes["ensemble"]
        curve = roc_curve_data(probability.isel(chosen), happened.isel(chosen), thresholds, **options)
        assert at["roc_area"].item() == pytest.approx(curve["AUC"].item(), abs=1e-9)


def test_reliability_is_how_often_it_happens_where_it_is_forecast(case):
    forecast, truth, weights = (field.values for field in arrays(case))
    count = (forecast > THRESHOLD).sum(axis=2)
    for k in range(forecast.shape[2] + 1):
        at = case.scores.sel(event="warm").isel(count=k)
        np.testing.assert_allclose(at["event_share"], (weights * (count == k)).sum((0, 2)), atol=1e-9)
        happened = weights * ((count == k) & (truth > THRESHOLD))
        np.testing.assert_allclose(at["event_happened"], happened.sum((0, 2)), atol=1e-9)
