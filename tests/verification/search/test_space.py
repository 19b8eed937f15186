import optuna
import pytest
from pydantic import ValidationError

from diffusion_lab.samplers import SAMPLERS
from diffusion_lab.sampling import PRESETS, SamplingSettings
from diffusion_lab.verification.search.space import SearchSpace, calls_of, describe, network_calls

GUIDE = PRESETS["guide"]
TWO_CALLS_A_STEP = ("heun", "dpmpp_2s")


def suggestions(space, max_calls, count=200):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.suggest(study.ask(), max_calls, GUIDE) for _ in range(count)]


def test_the_guides_default_needs_99_calls():
    assert network_calls(GUIDE) == 99


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_calls_follow_from_sampler_and_steps(sampler):
    assert calls_of(sampler, 10) == (19 if sampler in TWO_CALLS_A_STEP else 10)
    churned = GUIDE.override({"num_steps": 10}, {"sampler": sampler})
    assert network_calls(churned) == calls_of(sampler, 10)


def test_no_suggestion_needs_more_calls_than_allowed_nor_leaves_a_call_unused():
    calls = set()
    for settings in suggestions(SearchSpace(), 12):
        calls.add(network_calls(settings))
        assert network_calls(settings) <= 12
    assert calls == set(range(3, 13)) | {5}


def test_suggestions_stay_within_the_space():
    space = SearchSpace(sampler="heun", schedule_type="karras", num_steps=(4, 6), sigma_max=(20, 30), rho=7)
    for settings in suggestions(space, 20):
        schedule, sampler = settings.noise_scheduler, settings.diffusion_sampler
        assert 4 <= schedule["num_steps"] <= 6
        assert 20 <= schedule["sigma_max"] <= 30
        assert (schedule["rho"], sampler["sampler"]) == (7, "heun")


def test_parameters_are_given_only_where_they_act():
    kinds = {"churned": 0, "still": 0, "churnless": 0}
    for settings in suggestions(SearchSpace(), 20):
        schedule, sampler = settings.noise_scheduler, settings.diffusion_sampler
        assert ("rho" in schedule) == (schedule["schedule_type"] == "karras")
        if sampler["sampler"] not in TWO_CALLS_A_STEP:
            stochastic = sampler["sampler"] in ("euler_ancestral", "dpmpp_2m_sde")
            assert sampler.keys() == ({"sampler", "S_noise"} if stochastic else {"sampler"})
            kinds["churnless"] += 1
        elif sampler["S_churn"] == 0:  # the others, which do not act, stay as they were
            assert sampler == {**GUIDE.diffusion_sampler, "sampler": sampler["sampler"]}
            kinds["still"] += 1
        else:
            assert sampler.keys() == {"sampler", "S_churn", "S_min", "S_max", "S_noise"}
            assert sampler["S_max"] <= 100 < GUIDE.diffusion_sampler["S_max"]
            kinds["churned"] += 1
    assert min(kinds.values()) > 20


def test_numbers_have_three_digits():
    for settings in suggestions(SearchSpace(), 20, 20):
        sigma_max = settings.noise_scheduler["sigma_max"]
        assert sigma_max == float(f"{sigma_max:.3g}")


def test_samplers_that_are_too_expensive_are_left_out():
    space = SearchSpace(sampler=("heun", "deis", "dpmpp_2s"), num_steps=(8, 10))
    assert space.within(10).sampler == ("deis",)
    assert space.within(15).sampler == space.sampler
    with pytest.raises(ValueError, match="8 steps need 8 network calls or more, but max_calls = 7"):
        space.within(7)


def test_guesses_lie_in_the_space():
    space = SearchSpace(sampler=("deis", "dpmpp_2s"), sigma_max=(10, 50), schedule_type="cosine")
    guesses = space.guesses(16)
    assert [(g["sampler"], g["network_calls"]) for g in guesses] == [
        ("deis", 16),
        ("deis", 8),
        ("dpmpp_2s", 16),
        ("dpmpp_2s", 16),
    ]
    assert {g["sigma_max"] for g in guesses} == {50}
    assert {g["schedule_type"] for g in guesses} == {"cosine"}
    study = optuna.create_study()
    for guess in guesses:
        study.enqueue_trial(guess)
    suggested = [space.suggest(study.ask(), 16, GUIDE) for _ in guesses]
    assert suggested[-1].diffusion_sampler == {
        "sampler": "dpmpp_2s",
        "S_churn": 2.5,
        "S_min": 0.75,
        "S_max": 100.0,  # infinite there; no level of the space is higher
        "S_noise": 1.05,
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampler": "dies"}, "sampler must name some of euler, .*, got dies"),
        (
            {"schedule_type": ["manual"]},
            "schedule_type must name some of karras, exponential, cosine, linear",
        ),
        ({"rho": (7, 3)}, "rho needs 1e-09 ≤ low ≤ high, got 7 … 3"),
        ({"num_steps": 0}, "num_steps needs 1 ≤ low"),
        ({"sigma_min": (0.1, 6.0)}, "sigma_min reaches above the lowest sigma_max"),
        ({"S_chrn": 1}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_spaces_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        SearchSpace(**wrong)


def test_a_setting_in_words_leaves_out_what_does_not_act():
    schedule = {"schedule_type": "karras", "num_steps": 9, "sigma_max": 80.0, "sigma_min": 0.02, "rho": 7.0}
    settings = SamplingSettings(schedule, {"sampler": "heun", "S_churn": 0.0})
    assert describe(settings) == "heun, karras, num_steps 9, sigma_max 80, sigma_min 0.02, rho 7"
    churned = settings.override(sampler_params={"S_churn": 2.5})
    assert describe(churned).endswith("rho 7, S_churn 2.5")


def test_what_is_not_searched_stays_as_it_is():
    defaults = GUIDE.override(sampler_params={"noise_correlation": 0.5})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    suggested = SearchSpace().suggest(study.ask(), 20, defaults)
    assert suggested.noise_correlation == 0.5
