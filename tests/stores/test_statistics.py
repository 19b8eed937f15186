import numpy as np
import pytest

from diffusion_lab.stores.statistics import StatisticsCollector

MEANS = np.array([0.0, 5.5e4, 1.0e5, 250.0])[:, None]
SPREADS = np.array([1.0, 1.0e3, 0.5, 10.0])[:, None]


@pytest.fixture
def fields():
    rng = np.random.default_rng(1)
    x = (MEANS + SPREADS * rng.normal(size=(103, 4, 50))).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan  # holes
    x[[17, 18, 60]] = np.nan  # missing dates
    return x


def collect(fields, block, window, leads):
    collector = StatisticsCollector(fields.shape[1], window, leads)
    for start in range(0, len(fields), block):
        collector.update(start, fields[start : start + block])
    return collector


def assert_equals_numpy(statistics, values):
    """To 1e-12 of each number, or of the spread for the mean of a field that is zero on average."""
    flat = np.moveaxis(values.astype(np.float64), 1, 0).reshape(values.shape[1], -1)
    stdev = np.nanstd(flat, axis=1)
    np.testing.assert_allclose(statistics.stdev, stdev, rtol=1e-12)
    assert np.all(
        abs(statistics.mean - np.nanmean(flat, axis=1)) <= 1e-12 * np.maximum(stdev, abs(statistics.mean))
    )
    np.testing.assert_array_equal(statistics.minimum, np.nanmin(flat, axis=1))
    np.testing.assert_array_equal(statistics.maximum, np.nanmax(flat, axis=1))


@pytest.mark.parametrize("block", [1, 2, 7, 200])
def test_equals_numpy_with_nan_and_missing_dates(fields, block):
    window = np.zeros(len(fields), bool)
    window[5:90] = True
    state, tendencies = collect(fields, block, window, {"6h": 1, "1d": 4}).result()
    inside = fields[5:90].astype(np.float64)
    assert_equals_numpy(state, inside)
    assert_equals_numpy(tendencies["6h"], inside[1:] - inside[:-1])
    assert_equals_numpy(tendencies["1d"], inside[4:] - inside[:-4])


def test_many_blocks_keep_the_digits_of_a_large_mean():
    rng = np.random.default_rng(2)
    x = (1.0e5 + 0.1 * rng.normal(size=(20000, 1, 3))).astype(np.float32)
    state, _ = collect(x, 1, np.ones(len(x), bool), {}).result()
    assert_equals_numpy(state, x)


def test_two_values():
    x = np.array([[[1.0, 3.0]], [[2.0, 8.0]]], np.float32)
    state, tendencies = collect(x, 1, np.ones(2, bool), {"1d": 1}).result()
    assert state.mean[0] == 3.5 and state.stdev[0] == np.sqrt(7.25)
    assert tendencies["1d"].mean[0] == 3.0 and tendencies["1d"].stdev[0] == 2.0


def test_variable_without_values_has_no_statistics():
    x = np.full((3, 2, 4), np.nan, np.float32)
    x[:, 1] = 2
    state, _ = collect(x, 2, np.ones(3, bool), {}).result()
    assert np.isnan([state.mean[0], state.stdev[0], state.minimum[0], state.maximum[0]]).all()
    assert (state.mean[1], state.stdev[1]) == (2, 0)


def test_resumed_state_gives_the_same_bits(fields):
    window = np.ones(len(fields), bool)
    whole = collect(fields, 10, window, {"6h": 1, "1d": 4})
    first = collect(fields[:40], 10, window, {"6h": 1, "1d": 4})
    second = StatisticsCollector(4, window, {"6h": 1, "1d": 4})
    second.state = first.state
    second.remember(fields[30:40])
    for start in range(40, len(fields), 10):
        second.update(start, fields[start : start + 10])
    np.testing.assert_array_equal(second.state, whole.state)
