import numpy as np
import pytest
import xarray as xr
from scores.probability import brier_score, brier_score_for_ensemble, roc_curve_data

from diffusion_lab.verification.events import event_scores, event_table, roc_curve


@pytest.fixture(params=[2, 9])
def case(request):
    """Members and truth of two starts, some equal to the threshold; weights; the table and its parts."""
    rng = np.random.default_rng(request.param)
    common = rng.normal(size=(2, 1, 400))
    fields = (common + rng.normal(size=(2, request.param + 1, 400))).round(1)
    threshold, weights = rng.normal(size=(2, 400)).round(1), rng.uniform(size=400)
    forecast, truth = fields[:, 1:], fields[:, 0].copy()
    truth[0, :30] = np.nan
    weights = weights.copy()
    table = event_table(forecast, truth, threshold, weights)
    # Both starts count alike, however many cells are known: that is an average of case means.
    mean = table.mean(axis=0)
    share, happened = (xr.DataArray(part, dims="count") for part in mean)
    return forecast, truth, threshold, weights, share, happened


def as_arrays(case):
    forecast, truth, threshold, weights, *_ = case
    known = np.isfinite(truth)
    weight = np.where(known, weights, 0) / np.where(known, weights, 0).sum(axis=1, keepdims=True) / 2
    dims = ("start", "cell")
    event = xr.DataArray(np.where(known, truth > threshold, np.nan), dims=dims)
    probability = xr.DataArray((forecast > threshold[:, None]).mean(axis=1), dims=dims)
    return probability, event, xr.DataArray(weight, dims=dims)


def test_shares_sum_to_one(case):
    *_, share, happened = case
    assert share.sum().item() == pytest.approx(1.0)
    assert (happened <= share + 1e-12).all()


def test_fair_brier_score_equals_the_librarys(case):
    forecast, truth, threshold, *_, share, happened = case
    *_, weight = as_arrays(case)
    excess = xr.DataArray(forecast - threshold[:, None], dims=("start", "ensemble", "cell"))
    observed = xr.DataArray(truth - threshold, dims=("start", "cell"))
    import operator

    expected = brier_score_for_ensemble(
        excess, observed, "ensemble", [0.0], weights=weight, event_threshold_operator=operator.gt
    )
    scores = event_scores(share, happened)
    assert scores["brier"].item() == pytest.approx(expected.item(), abs=1e-12)


def test_brier_skill_is_that_against_the_frequency(case):
    _, event, weight = as_arrays(case)
    *_, share, happened = case
    frequency = event.weighted(weight).mean()
    climate = brier_score(xr.full_like(event, frequency.item()), event, weights=weight)
    scores = event_scores(share, happened)
    assert scores["brier_skill"].item() == pytest.approx(1 - (scores["brier"] / climate).item(), abs=1e-9)


def test_roc_equals_the_librarys(case):
    probability, event, weight = as_arrays(case)
    forecast, *_, share, happened = case
    members = forecast.shape[1]
    thresholds = np.arange(members + 1) / members
    expected = roc_curve_data(probability, event, thresholds, weights=weight)
    hits, false_alarms = roc_curve(share, happened)
    # The library adds a threshold of infinity, where nobody acts.
    np.testing.assert_allclose(hits, expected["POD"], atol=1e-12)
    np.testing.assert_allclose(false_alarms, expected["POFD"], atol=1e-12)
    assert event_scores(share, happened)["roc_area"].item() == pytest.approx(expected["AUC"].item(), abs=1e-9)


def test_two_cells_by_hand():
    # Cell 1: both members above, and it happens; cell 2, of weight 3: one of two, and it does not.
    table = event_table(
        np.array([[2.0, 2.0], [3.0, 0.0]]), np.array([4.0, 0.5]), np.ones(2), np.array([1.0, 3.0])
    )
    np.testing.assert_allclose(table, [[0, 0.75, 0.25], [0, 0, 0.25]])
    scores = event_scores(*(xr.DataArray(part, dims="count") for part in table))
    # (1/2)² less the excess 1·1/(4·1): the fair score of one of two members is 0 either way.
    assert scores["brier"].item() == pytest.approx(0.75 * (0.25 - 0.25))
    assert scores["roc_area"].item() == pytest.approx(1.0)
