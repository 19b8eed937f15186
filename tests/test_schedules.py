"""Schedules against worked-out levels; level distributions against their quantile functions."""

import math

import pytest
import torch

from diffusion_lab.schedules import (
    SCHEDULES,
    KarrasUniform,
    LogNormal,
    LogUniform,
    check_schedule,
    cosine,
    exponential,
    karras,
    linear,
    manual,
    piecewise,
)


def test_karras_levels():
    expected = [100, 25.8029327591, 4.80263088268, 0.523033125192, 0.02, 0]
    assert karras(5, 100.0, 0.02, rho=7.0).tolist() == pytest.approx(expected, rel=1e-11)


def test_one_step_is_sigma_max_then_zero():
    for schedule in (karras, linear, exponential, cosine):
        assert schedule(1, 80.0, 0.002).tolist() == pytest.approx([80, 0])


@pytest.mark.parametrize(
    ("schedule", "straighten"),
    [
        (karras, lambda sigma: sigma ** (1 / 7)),
        (linear, lambda sigma: sigma),
        (exponential, torch.log),
        (cosine, torch.atan),
    ],
)
def test_each_schedule_is_a_straight_line_in_its_function(schedule, straighten):
    levels = schedule(9, 80.0, 0.002)
    assert levels.dtype == torch.float64
    assert (levels[0].item(), levels[-2].item(), levels[-1].item()) == pytest.approx((80, 0.002, 0))
    assert straighten(levels[:-1]).diff(n=2).abs().max() < 1e-12


def test_cosine_matches_alpha_bar_and_the_offset_cancels():
    levels = cosine(6, 50.0, 0.02, s=0.008)
    phase = (torch.atan(levels[:-1]) / (math.pi / 2) * 1.008) - 0.008  # t of each level
    alpha_bar = torch.cos((phase + 0.008) / 1.008 * math.pi / 2) ** 2
    assert torch.allclose(((1 - alpha_bar) / alpha_bar).sqrt(), levels[:-1], rtol=1e-10)
    assert torch.allclose(levels, cosine(6, 50.0, 0.02, s=0.5), rtol=1e-10)


def test_karras_goes_from_linear_to_exponential():
    assert torch.allclose(karras(7, 80.0, 0.5, rho=1.0), linear(7, 80.0, 0.5))
    assert torch.allclose(karras(7, 80.0, 0.5, rho=1e6), exponential(7, 80.0, 0.5), rtol=1e-4)


def test_piecewise_has_its_own_spacing_on_each_side():
    levels = piecewise(8, 100.0, 0.01, sigma_split=2.0, num_steps_above=3, rho_above=1.0, rho_below=7.0)
    assert levels[:4].tolist() == pytest.approx([100, 100 - 98 / 3, 100 - 196 / 3, 2])
    assert torch.allclose(levels[3:], karras(5, 2.0, 0.01))


def test_manual_appends_the_zero_only_where_missing():
    assert manual([3, 1]).tolist() == manual(torch.tensor([3.0, 1.0, 0.0])).tolist() == [3, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 80.0, 0.02), "num_steps"),
        ((2.5, 80.0, 0.02), "num_steps"),
        ((5, 0.01, 0.02), "sigma_max"),
        ((5, 80.0, 0.0), "sigma_min"),
        ((5, math.inf, 0.02), "sigma_max"),
        ((5, 80.0, math.nan), "sigma_min"),
        ((2, 1.0, 1.0), "strictly decrease"),
    ],
)
def test_bad_ranges_are_named(arguments, named):
    for name in ("karras", "linear", "exponential", "cosine"):
        with pytest.raises(ValueError, match=named):
            SCHEDULES[name](*arguments)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="rho"):
        karras(5, 80.0, 0.02, rho=0.0)
    with pytest.raises(ValueError, match="sigma_split"):
        piecewise(5, 80.0, 0.02, sigma_split=100.0)
    with pytest.raises(ValueError, match="num_steps_above"):
        piecewise(5, 80.0, 0.02, num_steps_above=4)
    with pytest.raises(TypeError, match="sigma_mx"):
        karras(5, sigma_mx=80.0, sigma_min=0.02)


@pytest.mark.parametrize(
    ("levels", "named"),
    [
        ([3, 1, 1], r"sigmas\[1\] = 1.0 is followed by 1.0"),
        ([1, 3], "strictly decrease"),
        ([3, -1], "positive"),
        ([0.0], "positive"),
        ([3, math.nan], "finite"),
        ([[3, 1]], "one-dimensional"),
        ([], "at least one"),
    ],
)
def test_a_list_that_is_no_schedule_is_refused(levels, named):
    with pytest.raises(ValueError, match=named):
        check_schedule(levels)


TOP, BOTTOM = 80 ** (1 / 7), 0.02 ** (1 / 7)
DISTRIBUTIONS = [
    (
        KarrasUniform,
        {"sigma_max": 80.0, "sigma_min": 0.02},
        lambda s: (TOP - s ** (1 / 7)) / (TOP - BOTTOM),
    ),
    (LogUniform, {"sigma_max": 80.0, "sigma_min": 0.02}, lambda s: (80 / s).log() / math.log(4000)),
    (LogNormal, {"P_mean": -1.2, "P_std": 1.2}, lambda s: torch.special.ndtr((s.log() + 1.2) / 1.2)),
]


@pytest.mark.parametrize(("distribution", "arguments", "cdf"), DISTRIBUTIONS)
def test_levels_follow_their_distribution(distribution, arguments, cdf):
    sigma = distribution(**arguments).sample(100, 40, torch.Generator().manual_seed(0))
    assert sigma.shape == (100, 1, 40, 1, 1)
    assert sigma.dtype == torch.float32
    u = cdf(sigma.double().flatten()).sort().values
    distance = (u - torch.arange(0.5, 4000) / 4000).abs().max().item()
    assert distance < 1.63 / math.sqrt(4000)  # Kolmogorov-Smirnov, 1 %


@pytest.mark.parametrize(("distribution", "arguments", "cdf"), DISTRIBUTIONS)
def test_stratified_levels_fall_one_in_each_stratum(distribution, arguments, cdf):
    levels = distribution(**arguments, stratified=True)
    generator = torch.Generator().manual_seed(0)
    u = torch.stack([cdf(levels.sample(4, 2, generator).double().flatten()) for _ in range(2000)])
    strata = (u * 8).floor().clamp(0, 7)
    assert torch.equal(strata.sort(dim=1).values, torch.arange(8.0, dtype=torch.float64).expand(2000, 8))
    assert (u.mean(0) - 0.5).abs().max() < 4 * math.sqrt(1 / 12 / 2000)  # each place sees all levels


def test_bad_distributions_are_refused():
    for make in (
        lambda: KarrasUniform(0.01, 0.02),
        lambda: KarrasUniform(80.0, 0.02, rho=-1.0),
        lambda: LogUniform(80.0, 0.0),
        lambda: LogNormal(P_std=0.0),
        lambda: LogNormal(P_mean=math.nan),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
