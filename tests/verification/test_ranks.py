import tracemalloc

import numpy as np
import pytest
import xarray as xr
from scores.probability import rank_histogram

from diffusion_lab.verification.ranks import flatness, rank_table


def labelled(field, *dims):
    return xr.DataArray(field, dims=dims)


@pytest.mark.parametrize("members", [2, 7])
@pytest.mark.parametrize("decimals", [0, 12])  # rounded to whole numbers, most fields tie somewhere
def test_the_truths_row_equals_the_librarys_histogram(members, decimals):
    rng = np.random.default_rng(0)
    forecast, truth = (
        rng.normal(size=(3, members, 40)).round(decimals),
        rng.normal(size=(3, 40)).round(decimals),
    )
    truth[1, 5:9] = np.nan
    weights = rng.uniform(size=40)
    expected = rank_histogram(
        labelled(forecast, "case", "ensemble", "cell"),
        labelled(truth, "case", "cell"),
        "ensemble",
        preserve_dims=["case"],
        weights=labelled(weights, "cell"),
    )
    table = rank_table(forecast, truth, weights)
    np.testing.assert_allclose(table[:, 0], expected.transpose("case", "rank"), atol=1e-12)


def test_members_in_the_truths_place_by_hand():
    # Truth 5, members 1 and 3: in order of candidates they take the ranks 3, 1 and 2 among the others.
    table = rank_table(np.array([[1.0], [3.0]]), np.array([5.0]), np.ones(1))
    np.testing.assert_array_equal(table, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    # Truth and one member tie: either is in the first or the second place.
    table = rank_table(np.array([[1.0], [3.0]]), np.array([1.0]), np.ones(1))
    np.testing.assert_array_equal(table, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])


def tables(members, starts, cells, truth_scale, truth_shift=0.0, trials=1, seed=0):
    """(start, trial, candidate, rank) of fields that are the same all over the globe but for a ripple."""
    rng = np.random.default_rng(seed)
    large = rng.normal(size=(starts, trials, members + 1, 1))
    fields = large + 0.01 * rng.normal(size=(starts, trials, members + 1, cells))
    truth = truth_scale * fields[:, :, 0] + truth_shift
    table = rank_table(fields[:, :, 1:], truth, np.ones(cells))
    return labelled(table, "start", "trial", "candidate", "rank")


def test_p_values_of_an_exchangeable_truth_are_uniform_however_alike_the_cells():
    p = flatness(tables(4, 10, 6, truth_scale=1.0, trials=400))["rank_p"].values
    # 400 uniform numbers: mean 1/2 ± 0.29/20, share below 0.1 is 0.1 ± 0.015.
    assert p.mean() == pytest.approx(0.5, abs=4 * 0.29 / 20)
    assert (p <= 0.1).mean() == pytest.approx(0.1, abs=4 * 0.015)


def test_too_wide_too_narrow_and_shifted_truths_are_found():
    for scale, shift in [(4.0, 0.0), (0.1, 0.0), (1.0, 3.0)]:
        found = flatness(tables(8, 26, 5, scale, shift))
        assert found["rank_p"].item() <= 0.01


def test_one_start_cannot_show_much():
    """With one start the truth is the strangest of 17 fields by chance once in 17 times."""
    found = flatness(tables(16, 1, 5, 1.0, 50.0))
    assert found["rank_p"].item() >= 0.04
    assert found["reliability_index"].item() == pytest.approx((1 - 1 / 17) + 16 / 17)


def test_distance_of_a_known_histogram():
    table = labelled(np.tile([[0.5, 0.25, 0.25]] * 3, (2, 1, 1)), "start", "candidate", "rank")
    found = flatness(table)
    assert found["reliability_index"].item() == pytest.approx(1 / 6 + 2 / 12)
    assert found["rank_p"].item() == 1.0  # every choice is as far from flat


def test_memory_grows_with_the_members_not_with_their_pairs():
    fields = np.random.default_rng(0).normal(size=(201, 500))
    tracemalloc.start()
    rank_table(fields[1:], fields[0], np.ones(500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15 * fields.nbytes  # a flag for each pair in each cell would be 25 times as much
