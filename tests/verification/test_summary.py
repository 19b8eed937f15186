import numpy as np
import pytest
import xarray as xr
from scores.processing import block_bootstrap

from diffusion_lab.verification.summary import intervals, names_of_baselines, resampled_counts, summarise


def means_of(values, **others):
    """Case means of one variable and lead time from numbers for each start."""

    def labelled(numbers):
        return (("start", "variable", "lead_time"), np.asarray(numbers, float)[:, None, None])

    fields = {"fair_crps": values, "squared_error": np.square(values), "variance": np.square(values)} | others
    return xr.Dataset(
        {name: labelled(numbers) for name, numbers in fields.items()},
        {"variable": ["t"], "lead_time": [np.timedelta64(1, "D")]},
        {"num_members": 4},
    )


def test_each_resample_is_of_whole_blocks():
    counts = resampled_counts(10, 4, 500, seed=0)
    assert (counts.sum(axis=1) == 10).all()
    # A start is drawn 10 times among 10 with chance 1/10 each, wherever it is: circular blocks favour none.
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.15)
    drawn = counts > 0
    assert not (drawn & ~np.roll(drawn, 1, axis=1) & ~np.roll(drawn, -1, axis=1)).any(axis=1).all()


@pytest.mark.parametrize("block", [1, 3])
def test_intervals_are_those_of_the_librarys_bootstrap(block):
    rng = np.random.default_rng(0)
    values = 5 + np.convolve(rng.normal(size=30), np.ones(4), "valid")  # neighbours are alike
    bounds = intervals(means_of(values), block)["fair_crps"].values[:, 0, 0]
    np.random.seed(0)  # noqa: NPY002  # the library draws from the global generator
    resampled = block_bootstrap(xr.DataArray(values, dims="start"), blocks={"start": block}, n_iteration=4000)
    expected = np.quantile(resampled.mean("start"), [0.025, 0.975])
    np.testing.assert_allclose(bounds, expected, atol=0.15 * np.ptp(expected) / 2)


def test_single_starts_give_the_interval_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(10, 2, size=200)
    low, high = intervals(means_of(values), block=1)["fair_crps"].values[:, 0, 0]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.12)


def test_skill_is_resampled_with_its_baseline():
    """Forecast and baseline vary together: their ratio does not, and its interval knows."""
    values = np.random.default_rng(2).uniform(1, 9, size=26)
    bounds = intervals(
        means_of(values, persistence_absolute_error=2 * values, persistence_squared_error=values)
    )
    np.testing.assert_allclose(bounds["persistence_crpss"], 0.5, atol=1e-12)


def test_few_starts_have_no_interval():
    scores = summarise(means_of([1.0, 2.0, 3.0, 4.0]))
    assert scores["fair_crps"].item() == 2.5
    assert scores["fair_crps_interval"].isnull().all()
    assert summarise(means_of([1.0, 2.0, 3.0, 4.0, 5.0]))["fair_crps_interval"].notnull().all()


def test_scores_of_one_start():
    scores = summarise(means_of([3.0]))
    assert scores["rmse"].item() == 3.0
    assert scores["spread_skill"].item() == pytest.approx(np.sqrt(5 / 4))
    assert scores.attrs == {"num_members": 4, "num_starts": 1}


def test_baselines_are_found_by_their_scores():
    values = [1.0, 2.0]
    scores = summarise(
        means_of(
            values,
            persistence_absolute_error=values,
            persistence_squared_error=values,
            climatological_ensemble_fair_crps=values,
            climatological_ensemble_squared_error=values,
        )
    )
    assert names_of_baselines(scores) == ["persistence", "climatological_ensemble"]
