import numpy as np
import pytest

from diffusion_lab.making.speedy.rounding import power_of_two, round_to


@pytest.mark.parametrize(
    ("tolerance", "step"), [(0.5, 1.0), (0.49, 0.5), (2.6, 4.0), (3.99, 4.0), (4.0, 8.0)]
)
def test_the_largest_power_of_two_within_the_tolerance(tolerance, step):
    assert power_of_two(tolerance) == step


def test_rounding_errs_by_half_a_step_at_most_and_reaches_it():
    values = np.float32([0.5, 1.0, 1.49, 1.5, -2.5, 3.0, 54321.3])
    np.testing.assert_array_equal(round_to(values, 2.0), np.float32([0, 0, 2, 2, -2, 4, 54322]))


def test_values_lose_their_low_bits():
    values = np.random.default_rng(0).normal(5.5e4, 3e3, 1000).astype(np.float32)
    rounded = round_to(values, 4.0)
    assert np.abs(rounded.astype(np.float64) - values).max() <= 2.0
    # 2^15 <= z < 2^16 in float32: a step of 4 = 2^(15-13) leaves 13 of 23 bits of mantissa.
    assert not (rounded.view(np.uint32) & (2**10 - 1)).any()


@pytest.mark.parametrize("tolerance", [0.0, -1.0, np.nan, np.inf])
def test_impossible_tolerances_are_errors(tolerance):
    with pytest.raises(ValueError, match="positive and finite"):
        power_of_two(tolerance)
