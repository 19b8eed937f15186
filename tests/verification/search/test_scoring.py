import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from diffusion_lab.sampling import PRESETS, SamplingSettings
from diffusion_lab.verification.search.scoring import (
    SettingScorer,
    compare_scores,
    mean_fair_crps,
)
from diffusion_lab.verification.search.space import describe, network_calls

DAY = np.timedelta64(86400, "s")
GUIDE = PRESETS["guide"]
STARTS = np.datetime64("2024-11-03", "s") + 4 * np.arange(3) * DAY


def setting(sigma_max, **sampler):
    schedule = {
        "schedule_type": "karras",
        "num_steps": 4,
        "sigma_max": sigma_max,
        "sigma_min": 0.1,
        "rho": 7.0,
    }
    return SamplingSettings(schedule, {"sampler": "deis"} | sampler)


def test_the_score_is_in_units_of_persistences_error(landscape):
    """Errors of e and 4e, where persistence errs by 2 and 8: e/2 for each variable."""
    scorer = SettingScorer(landscape, STARTS, members=3)
    torch.testing.assert_close(scorer.persistence, torch.tensor([[2.0, 8.0]], dtype=torch.float64))
    assert scorer(setting(30 * np.e), 1) == pytest.approx(0.5)
    assert scorer(setting(30.0), 0) == pytest.approx(0)


def test_lead_times_are_averaged(landscape):
    """After two days the truth has returned: persistence has no error."""
    with pytest.raises(ValueError, match="persistence has no error for warm, windy"):
        SettingScorer(landscape, STARTS, steps=2)
    landscape.state = lambda day: np.array([[1.0, 4.0]] * 4) * day
    scorer = SettingScorer(landscape, STARTS, steps=2)
    # Truth changes by 1 and 2 after one and two days, the error is 1 each time.
    assert scorer(setting(30 * np.e), 0) == pytest.approx((1 + 1 / 2) / 2)


def test_the_perfect_ensemble_has_the_best_possible_score(exact):
    """35 starts of 42 nodes and 2 variables: E CRPS = σ/√π at each node, by its area."""
    starts = np.datetime64("2024-11-01", "s") + np.arange(70) * DAY
    scorer = SettingScorer(exact, starts, members=16)
    score = np.mean([scorer(GUIDE, i) for i in range(0, 70, 2)])
    best = (scorer._weights @ exact.atmosphere.best_crps()).item() / scorer.persistence.mean().item()
    assert score == pytest.approx(best, rel=0.03)


def test_a_setting_gets_the_same_noise_each_time_and_members_keep_theirs(exact):
    first = SettingScorer(exact, STARTS, members=4)(GUIDE, 1)
    assert SettingScorer(exact, STARTS, members=4)(GUIDE, 1) == first
    assert SettingScorer(exact, STARTS, members=4, seed=1)(GUIDE, 1) != first


def test_another_objective(exact):
    def spread(forecast, truth, weights):
        return -forecast.std(1).mean().item()

    scorer = SettingScorer(exact, STARTS, objective=spread)
    wide = setting(10.0, sampler="heun", S_churn=0.0)
    assert scorer(wide, 0) < scorer(GUIDE, 0) < 0  # Heun in 4 steps ends too wide


def test_scores_are_kept_on_disk(landscape, tmp_path):
    settings = setting(50.0)
    score = SettingScorer(landscape, STARTS, folder=tmp_path)(settings, 0)
    with (tmp_path / "scores.jsonl").open("a") as file:
        file.write('{"key": "torn')
    again = SettingScorer(landscape, STARTS, folder=tmp_path)
    assert again(settings, 0) == score
    assert len(landscape.runs) == 1
    again(settings, 1)  # another date, members, weights: another score
    SettingScorer(landscape, STARTS, members=4, folder=tmp_path)(settings, 0)
    landscape.model = torch.nn.Linear(1, 1)
    SettingScorer(landscape, STARTS, folder=tmp_path)(settings, 0)
    assert len(landscape.runs) == 4


def test_missing_truth_is_left_out():
    truth = torch.tensor([[[1.0], [torch.nan]]], dtype=torch.float64)
    forecast = torch.tensor([[[[1.0], [5.0]], [[3.0], [7.0]]]], dtype=torch.float64)
    # |1 − 1|/2 + |3 − 1|/2 − |1 − 3|/2 = 0
    assert mean_fair_crps(forecast, truth, torch.tensor([0.5, 0.5])) == 0


def test_no_start_is_refused(landscape):
    with pytest.raises(ValueError, match="no start date"):
        SettingScorer(landscape, [])


def test_calls_and_words_of_the_guides_default():
    assert network_calls(GUIDE) == 99
    assert describe(GUIDE) == "heun, karras, sigma_max 100, sigma_min 0.02, rho 7, num_steps 50"


@pytest.fixture
def scores():
    rng = np.random.default_rng(5)
    reference = 0.3 + 0.05 * rng.standard_normal(12)  # easy and hard dates
    return reference + 0.002 * rng.standard_normal(12) - 0.003, reference


def test_distant_starts_are_a_paired_t_test(scores):
    starts = STARTS[0] + 14 * np.arange(12) * DAY
    test = compare_scores(starts, *scores, DAY)
    expected = ttest_rel(*scores)
    interval = expected.confidence_interval(0.95)
    assert test.difference == pytest.approx(np.mean(scores[0] - scores[1]))
    assert test.interval == pytest.approx((interval.low, interval.high))
    assert test.confidence == pytest.approx(1 - expected.pvalue / 2)
    assert "better" in test.verdict
    worse = compare_scores(starts, *scores[::-1], DAY)
    assert worse.confidence == pytest.approx(expected.pvalue / 2)
    assert worse.interval == pytest.approx((-interval.high, -interval.low))
    assert ": worse" in worse.verdict


def test_overlapping_forecasts_count_for_less(scores):
    """Differences that persist for days: as many starts a day apart tell less of two-day forecasts."""
    wave = np.repeat([0.0, 1, 0, 1, 1, 0], 2)
    starts = STARTS[0] + np.arange(12) * DAY
    apart = compare_scores(starts, wave, np.zeros(12), DAY)
    overlapping = compare_scores(starts, wave, np.zeros(12), 2 * DAY)
    assert np.ptp(overlapping.interval) > 1.2 * np.ptp(apart.interval)


def test_equal_settings_are_no_better_than_each_other(scores):
    starts = STARTS[0] + 14 * np.arange(12) * DAY
    test = compare_scores(starts, scores[0], scores[0], DAY)
    assert (test.difference, test.interval, test.confidence) == (0, (0, 0), 0.5)
    assert "no difference" in test.verdict


def test_too_few_starts_are_refused():
    with pytest.raises(ValueError, match="three start dates or more, not 2"):
        compare_scores(STARTS[:2], np.zeros(2), np.ones(2), DAY)
    with pytest.raises(ValueError, match="3 starts within 5 lead times are too few"):
        compare_scores(STARTS, np.arange(3.0), np.ones(3), 20 * DAY)
