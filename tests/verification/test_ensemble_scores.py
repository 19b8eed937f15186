import numpy as np
import pytest
import torch
import xarray as xr
from scores.continuous import mse
from scores.probability import crps_for_ensemble
from torch.distributions import Normal

from diffusion_lab.verification.ensemble import (
    area_mean,
    area_means,
    baseline_means,
    ensemble_scores,
    fair_crps,
)


@pytest.mark.parametrize(
    ("members", "truth", "expected"),
    [
        ([1.0, 3.0], 2.0, 0.0),  # 1 - 2/2
        ([1.0, 3.0], 5.0, 2.0),  # 3 - 2/2
        ([0.0, 1.0, 4.0], 2.0, 1 / 3),  # 5/3 - (1 + 4 + 3)/6
        ([5.0, 5.0], 5.0, 0.0),
        ([5.0, 5.0, 5.0], 7.0, 2.0),
    ],
)
def test_fair_crps_by_hand(members, truth, expected):
    score = fair_crps(torch.tensor(members), torch.tensor(truth), dim=0)
    assert score.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("members", [2, 3, 16])
@pytest.mark.parametrize("decimals", [0, 12])  # rounded to whole numbers, many members tie
def test_fair_crps_equals_scores(members, decimals):
    rng = np.random.default_rng(members)
    forecast = (2 * rng.normal(size=(4, members, 50))).round(decimals)
    truth = (2 * rng.normal(size=(4, 50))).round(decimals)
    expected = crps_for_ensemble(
        xr.DataArray(forecast, dims=("case", "ensemble", "cell")),
        xr.DataArray(truth, dims=("case", "cell")),
        "ensemble",
        method="fair",
        preserve_dims="all",
    )
    actual = fair_crps(torch.from_numpy(forecast), torch.from_numpy(truth), dim=1)
    np.testing.assert_allclose(actual, expected.transpose("case", "cell"), atol=1e-12)


@pytest.mark.parametrize("members", [2, 5])
def test_fair_crps_is_unbiased_for_the_closed_form_of_a_gaussian(members):
    """CRPS(N(0, 1), y) = y (2Φ(y) - 1) + 2φ(y) - 1/√π (Gneiting & Raftery 2007), for any ensemble size."""
    generator = torch.Generator().manual_seed(0)
    forecast = torch.randn(members, 400_000, generator=generator, dtype=torch.float64)
    y, normal = torch.tensor(0.7, dtype=torch.float64), Normal(0.0, 1.0)
    exact = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - torch.pi**-0.5
    score = fair_crps(forecast, y.expand(400_000), dim=0)
    assert abs(score.mean() - exact) < 4 * score.std() / 400_000**0.5
    assert score.std() / 400_000**0.5 < 0.002


def test_float32_keeps_small_spreads_far_from_zero():
    generator = torch.Generator().manual_seed(1)
    forecast = 54_000 + torch.randn(16, 1000, generator=generator).mul(10).round()  # m2 s-2, as z500
    truth = 54_000 + torch.randn(1000, generator=generator).mul(10).round()
    exact = fair_crps(forecast.double() - 54_000, truth.double() - 54_000, dim=0)
    torch.testing.assert_close(fair_crps(forecast, truth, dim=0).double(), exact, rtol=0, atol=1e-4)


def test_area_mean_weighs_cells_and_leaves_out_nan():
    field = torch.tensor([[1.0, 2.0], [4.0, torch.nan], [0.0, 5.0]])
    mean = area_mean(field, torch.tensor([1.0, 1.0, 2.0]))
    torch.testing.assert_close(mean, torch.tensor([(1 + 4) / 4, (2 + 10) / 3]))


def test_scores_of_two_cells_by_hand():
    # Cell 1: members 1 and 3, truth 0; cell 2, of weight 3: members 4 and 4, truth 5.
    forecast = torch.tensor([[1.0, 4.0], [3.0, 4.0]])[None, :, :, None]
    truth = torch.tensor([[0.0, 5.0]])[..., None]
    means = area_means(forecast, truth, torch.tensor([0.25, 0.75]))
    assert means["fair_crps"].item() == pytest.approx(0.25 * (2 - 1) + 0.75 * 1)
    assert means["squared_error"].item() == pytest.approx(0.25 * 4 + 0.75 * 1)
    assert means["variance"].item() == pytest.approx(0.25 * 2)
    scores = ensemble_scores(means, num_members=2)
    assert scores["rmse"].item() == pytest.approx(1.75**0.5)
    assert scores["spread"].item() == pytest.approx(0.5**0.5)
    assert scores["spread_skill"].item() == pytest.approx((1.5 * 0.5 / 1.75) ** 0.5)
    single = baseline_means(forecast[:, 0], truth, torch.tensor([0.25, 0.75]))
    assert single["absolute_error"].item() == pytest.approx(1.0)
    assert single["squared_error"].item() == pytest.approx(1.0)


@pytest.mark.parametrize("members", [2, 8])
def test_exchangeable_members_have_spread_skill_one(members):
    generator = torch.Generator().manual_seed(2)
    centre = torch.randn(40, 1, 2000, 1, generator=generator)
    draws = centre + torch.randn(40, members + 1, 2000, 1, generator=generator)
    means = area_means(draws[:, 1:], draws[:, 0], torch.ones(2000))
    ratio = ensemble_scores({name: mean.mean(0) for name, mean in means.items()}, members)["spread_skill"]
    # The relative standard error of a variance of 80 000 draws is √(2/80 000) = 0.5 %.
    assert ratio.item() == pytest.approx(1.0, abs=0.015)


@pytest.mark.parametrize(("members", "cases"), [(2, 1), (16, 1), (16, 3)])
@pytest.mark.parametrize("decimals", [0, 6])
def test_float32_scores_equal_the_library_in_double_precision(members, cases, decimals):
    """As the live widget has them: ties, masked nodes, weights, one start or several, to 1e-6."""
    rng = np.random.default_rng(members)
    forecast, truth = rng.normal(size=(cases, members, 300, 8)), rng.normal(size=(cases, 300, 8))
    forecast, truth = (field.round(decimals).astype(np.float32) for field in (forecast, truth))
    truth[:, 40:80, 1] = np.nan
    weights = rng.uniform(size=300)

    def labelled(field, *dims):
        return xr.DataArray(field.astype(np.float64), dims=dims)

    ensemble = labelled(forecast, "case", "ensemble", "cell", "variable")
    observed = labelled(truth, "case", "cell", "variable")
    options = {"preserve_dims": ["variable"], "weights": labelled(weights, "cell")}
    masked = ensemble.var("ensemble", ddof=1).where(observed.notnull())
    variance = masked.weighted(options["weights"]).mean(["case", "cell"])
    squared_error = mse(ensemble.mean("ensemble"), observed, **options)
    expected = {
        "fair_crps": crps_for_ensemble(ensemble, observed, "ensemble", method="fair", **options),
        "rmse": squared_error**0.5,
        "spread_skill": ((members + 1) / members * variance / squared_error) ** 0.5,
    }

    means = area_means(*map(torch.from_numpy, (forecast, truth, weights)))
    scores = ensemble_scores({name: mean.mean(0) for name, mean in means.items()}, members)
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


def test_single_member_is_refused():
    with pytest.raises(ValueError, match="two members or more, got 1"):
        area_means(torch.zeros(1, 5, 1), torch.zeros(5, 1), torch.ones(5))
