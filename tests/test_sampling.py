import math

import pytest
import torch

from diffusion_lab.sampling import PRESETS, SamplingSettings

DEFAULTS = PRESETS["guide"]


def gaussian(y, sigma):
    """The exact denoiser of unit Gaussian data."""
    return y / (1 + sigma**2)


def noise(draw):
    return torch.randn(1, 1, 2, 50, 3, generator=torch.Generator().manual_seed(draw))


def test_defaults_are_the_guide_s():
    sigmas = DEFAULTS.sigmas()
    assert len(sigmas) == 51
    assert sigmas[[0, 49, 50]].tolist() == pytest.approx([100.0, 0.02, 0.0])
    assert DEFAULTS.diffusion_sampler["sampler"] == "heun"


def test_overrides_replace_single_keys():
    settings = DEFAULTS.override({"num_steps": 5, "sigma_max": 80}, {"S_churn": 2.5})
    # Karras, N = 5, ρ = 7: (80^(1/7) + (0.02^(1/7) - 80^(1/7))/4)^7 = 21.0769…
    second = (80 ** (1 / 7) + (0.02 ** (1 / 7) - 80 ** (1 / 7)) / 4) ** 7
    assert settings.sigmas()[:2].tolist() == pytest.approx([80.0, second])
    assert settings.diffusion_sampler == DEFAULTS.diffusion_sampler | {"S_churn": 2.5}
    assert DEFAULTS.noise_scheduler["num_steps"] == 50  # unchanged


@pytest.mark.parametrize(
    ("scheduler", "sampler", "calls"),
    [
        ({"num_steps": 7}, {}, 13),
        ({"num_steps": 20}, {}, 39),
        ({"num_steps": 7}, {"sampler": "euler"}, 7),
        ({"num_steps": 7}, {"sampler": "dpmpp_2m"}, 7),
    ],
)
def test_overrides_reach_the_sampler(scheduler, sampler, calls):
    steps = list(DEFAULTS.override(scheduler, sampler).steps(gaussian, noise))
    assert (len(steps), steps[-1].nfe) == (scheduler["num_steps"], calls)
    assert steps[-1].sigma == 0


def test_sampling_by_hand(heun_factor):
    settings = DEFAULTS.override({"num_steps": 4})
    sample = settings.sample(gaussian, noise)
    assert sample.dtype == torch.float32
    torch.testing.assert_close(sample, heun_factor(settings.sigmas().tolist()) * noise(0))


def test_churn_takes_later_draws():
    draws = []

    def recorded(draw):
        draws.append(draw)
        return noise(draw)

    DEFAULTS.override({"num_steps": 3}).sample(gaussian, recorded)
    assert draws == [0]
    DEFAULTS.override({"num_steps": 3}, {"S_churn": 1.0, "S_max": 50}).sample(gaussian, recorded)
    assert draws == [0, 0, 2, 3]  # σ = 100 is above S_max


def test_another_sampler_drops_only_defaults_that_it_does_not_know():
    settings = DEFAULTS.override(sampler_params={"sampler": "euler_ancestral", "eta": 0.5})
    assert dict(settings.diffusion_sampler) == {"sampler": "euler_ancestral", "eta": 0.5, "S_noise": 1.0}
    settings = DEFAULTS.override({"schedule_type": "exponential"})
    assert "rho" not in settings.noise_scheduler
    with pytest.raises(ValueError, match="'exponential' has no option 'rho'"):
        DEFAULTS.override({"schedule_type": "exponential", "rho": 7})
    with pytest.raises(ValueError, match="'euler' has no option 'S_churn'"):
        DEFAULTS.override(sampler_params={"sampler": "euler", "S_churn": 1})


def test_the_correlation_of_the_noise_is_kept_by_every_sampler():
    settings = DEFAULTS.override(sampler_params={"noise_correlation": 0.5}).override(
        None, {"sampler": "deis"}
    )
    assert settings.noise_correlation == 0.5
    assert DEFAULTS.noise_correlation == 0
    plain = DEFAULTS.override({"num_steps": 3}, {"sampler": "deis"})
    remembering = plain.override(None, {"noise_correlation": 0.5})
    assert torch.equal(plain.sample(gaussian, noise), remembering.sample(gaussian, noise))


def test_levels_by_hand():
    settings = DEFAULTS.override({"schedule_type": "manual", "sigmas": [10.0, 1.0]})
    assert settings.sigmas().tolist() == [10.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="'manual' needs sigmas"):
        DEFAULTS.override({"schedule_type": "manual"})


@pytest.mark.parametrize(
    ("scheduler", "sampler", "message"),
    [
        ({"num_step": 5}, None, r"'karras' has no option 'num_step'; did you mean 'num_steps'\? It takes"),
        ({"sigma_maximum": 5}, None, "did you mean 'sigma_max'"),
        (None, {"s_churn": 1}, "did you mean 'S_churn'"),
        (None, {"xyz": 1}, r"'heun' has no option 'xyz'\. It takes: S_churn, S_min, S_max, S_noise"),
        (None, {"noise": 1}, "no option 'noise'"),
        (None, {"denoiser": 1}, "no option 'denoiser'"),
        ({"schedule_type": "karas"}, None, "'karas'; it must be one of karras, linear"),
        (None, {"sampler": "huen"}, "'huen'; it must be one of euler, .*heun"),
        ({"sigma_max": 0.01}, None, "sigma_max"),
        ({"sigma_max": "big"}, None, "'sigma_max': 'big'.*must be real number"),
        ({"num_steps": 0}, None, "num_steps"),
        ({"rho": math.nan}, None, "rho"),
        (None, {"S_churn": -1}, "S_churn"),
        (None, {"S_min": 2, "S_max": 1}, "S_min"),
        (None, {"S_max": "inf"}, r"'S_max': 'inf'.*infinity is written \.inf"),
        (None, {"sampler": "deis", "order": 7}, "order"),
        (None, {"noise_correlation": 1.0}, "noise_correlation = 1.0 must be at least 0 and below 1"),
        ({"noise_correlation": 0.5}, None, "'karras' has no option 'noise_correlation'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(scheduler, sampler, message):
    with pytest.raises(ValueError, match=message):
        DEFAULTS.override(scheduler, sampler)


def test_as_dict_rebuilds_the_settings():
    settings = DEFAULTS.override({"num_steps": 3}, {"sampler": "deis"})
    assert SamplingSettings(**settings.as_dict()) == settings
