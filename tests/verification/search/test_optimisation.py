import numpy as np
import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf

from diffusion_lab.sampling import PRESETS
from diffusion_lab.verification.search.optimisation import SearchResult, search_sampler
from diffusion_lab.verification.search.scoring import (
    SettingScorer,
    compare_scores,
    mean_fair_crps,
)
from diffusion_lab.verification.search.space import SearchSpace, network_calls

DAY = np.timedelta64(86400, "s")
SEEN = np.datetime64("2024-11-01", "s") + np.arange(5) * DAY
UNSEEN = np.datetime64("2024-11-20", "s") + np.arange(20) * DAY
QUICK = SearchSpace(sampler=("deis", "heun"), num_steps=(3, 4))


def search(forecaster, budget, space=QUICK, **options):
    return search_sampler(forecaster, SEEN, space, budget, members=2, progress=False, **options)


@pytest.fixture(scope="module")
def found(new_landscape):
    """A search for the level that the toy likes best, 30."""
    forecaster = new_landscape()
    return search(forecaster, 40, max_calls=8), forecaster


def test_the_search_finds_what_is_best(found):
    result, _ = found
    schedule = result.settings.noise_scheduler
    assert schedule["sigma_max"] == pytest.approx(30, rel=0.07)
    assert result.score == pytest.approx(np.log(schedule["sigma_max"] / 30) ** 2 / 2)
    assert result.score == result.trials.query("state == 'complete'")["score"].min()


def test_it_knows_what_mattered(found):
    importance = found[0].importance
    first, second = sorted(importance, key=importance.get, reverse=True)[:2]
    assert first == "sigma_max"
    assert importance["sigma_max"] > 2 * importance[second]
    assert sum(importance.values()) == pytest.approx(1)


def test_what_lags_behind_is_stopped(found):
    result, forecaster = found
    stopped = result.trials.query("state == 'stopped'")
    assert 4 < len(stopped) < 32
    assert set(stopped["dates"]) == {2}  # here all dates tell the same
    assert len(forecaster.runs) <= 40 * len(SEEN) - 3 * len(stopped)
    assert (stopped["score"] > 0.1).all()


def test_the_answer_is_a_block_that_forecasts_take(found, tmp_path):
    result, forecaster = found
    (tmp_path / "run.yaml").write_text(result.yaml)
    block = OmegaConf.to_container(OmegaConf.load(tmp_path / "run.yaml"))
    assert block == {"predict_kwargs": result.settings.predict_kwargs} == yaml.safe_load(result.yaml)
    assert forecaster.settings.override(**block["predict_kwargs"]) == result.settings


def test_few_trials_tell_nothing_of_importance(landscape):
    assert search(landscape, 3).importance == {}


def test_expensive_settings_are_never_run(landscape):
    space = SearchSpace(sampler=("deis", "heun", "dpmpp_2s"), num_steps=(4, 100))
    result = search(landscape, 12, space, max_calls=6)
    assert set(result.trials["sampler"]) == {"deis"}  # four steps of the others need seven calls
    assert max(settings.noise_scheduler["num_steps"] for settings, _ in landscape.runs) == 6


def test_a_stopped_search_ends_where_it_would_have_anyway(landscape, tmp_path):
    whole = search(landscape, 20).trials
    scored = []

    def tired(forecast, truth, weights):
        scored.append(mean_fair_crps(forecast, truth, weights))
        if len(scored) in (1, 31, 50):  # before anything is told, among the guesses, among the proposals
            raise KeyboardInterrupt
        return scored[-1]

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search(landscape, 20, folder=tmp_path, objective=tired)
    pd.testing.assert_frame_equal(search(landscape, 20, folder=tmp_path, objective=tired).trials, whole)
    count = len(landscape.runs)
    search(landscape, 20, folder=tmp_path, objective=tired)  # nothing is left to do
    assert len(landscape.runs) == count
    assert len(search(landscape, 23, folder=tmp_path, objective=tired).trials) == 23


def test_a_folder_holds_one_search(landscape, tmp_path):
    search(landscape, 1, folder=tmp_path)
    with pytest.raises(ValueError, match=r"holds a search with another max_calls \(20, now 9\)"):
        search(landscape, 1, folder=tmp_path, max_calls=9)
    with pytest.raises(ValueError, match="another space"):
        search(landscape, 1, SearchSpace(), folder=tmp_path)
    with pytest.raises(ValueError, match="another seed"):
        search(landscape, 1, folder=tmp_path, seed=1)


def test_minutes_end_a_search(landscape):
    assert len(search(landscape, 50, minutes=1e-9).trials) == 1


def test_a_setting_that_blows_up_is_passed_over(landscape):
    def run(settings, *arguments):
        if settings.diffusion_sampler["sampler"] == "heun":
            raise FloatingPointError("the denoiser returned NaN")
        return type(landscape).run(landscape, settings, *arguments)

    landscape.run = run
    trials = search(landscape, 15).trials
    assert set(trials.query("sampler == 'heun'")["state"]) == {"stopped"}
    assert trials.query("sampler == 'heun'")["score"].isna().all()
    with pytest.raises(ValueError, match="no trial is complete"):
        search(landscape, 3, SearchSpace(sampler="heun"))


def test_the_front_is_what_nothing_beats_for_less(monkeypatch):
    rows = [(0, "complete", 9, 0.3), (1, "complete", 5, 0.4), (2, "complete", 7, 0.5), (3, "stopped", 4, 0.1)]
    rows += [(4, "complete", 9, 0.2), (5, "complete", 20, 0.2), (6, "complete", 15, 0.1)]
    trials = pd.DataFrame(rows, columns=["trial", "state", "calls", "score"])
    monkeypatch.setattr(SearchResult, "trials", trials)
    assert list(SearchResult(None, PRESETS["guide"], 0.0, 0).pareto_front["trial"]) == [1, 4, 6]


def test_a_search_beats_the_guides_default_where_all_error_is_the_samplers(exact):
    """On the linear-Gaussian atmosphere, by dates that the search never saw, with a fifth of the calls."""
    dates, space = (
        np.datetime64("2024-11-01", "s") + np.arange(12) * DAY,
        SearchSpace(sampler=("deis", "heun")),
    )
    result = search_sampler(exact, dates, space, 12, members=4, progress=False)
    scorer = SettingScorer(exact, UNSEEN, members=4)
    assert (result.calls <= 20, network_calls(PRESETS["guide"])) == (True, 99)
    found, default = (
        np.array([scorer(settings, i) for i in range(len(UNSEEN))])
        for settings in (result.settings, PRESETS["guide"])
    )
    assert found.mean() < 1.002 * default.mean()
    assert compare_scores(UNSEEN, found, default, DAY).interval[0] < 0
