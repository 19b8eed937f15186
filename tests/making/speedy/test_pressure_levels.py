"""Vertical interpolation and reduction on atmospheres whose profiles are known in closed form."""

import numpy as np
import pytest

from diffusion_lab.making.speedy import pressure_levels as pl

SIGMA = np.array([0.2, 0.34, 0.51, 0.685, 0.835, 0.95])
R, G, LAPSE = pl.GAS_CONSTANT, pl.GRAVITY, pl.LAPSE_RATE


def test_fields_linear_in_log_pressure_are_exact_and_constant_below_the_lowest_level():
    surface_pressure = np.array([101300.0, 87000.0])
    pressure = SIGMA[:, None] * surface_pressure
    profile = 3.0 + 2.0 * np.log(pressure)
    value = pl.interpolate(profile, SIGMA, surface_pressure, 85000.0)
    assert value[0] == pytest.approx(3.0 + 2.0 * np.log(85000.0), rel=1e-12)
    assert value[1] == profile[-1, 1]  # 850 hPa is below sigma 0.95 of 870 hPa


def test_above_the_highest_level_is_an_error():
    with pytest.raises(ValueError, match="above the highest model level"):
        pl.interpolate(np.ones((6, 1)), SIGMA, np.array([1e5]), 10000.0)


def test_geopotential_is_exact_where_temperature_is_linear_in_log_pressure():
    # T = a + b ln(p/p0) integrates to φ = φ0 - R (a x + b x²/2), x = ln(p/p0).
    surface_pressure, a, b = np.array([99000.0, 102000.0]), 280.0, 35.0
    x = np.log(SIGMA[:, None] * surface_pressure / 1e5)
    height = pl.geopotential(100.0 - R * (a * x + b * x**2 / 2), a + b * x, SIGMA, surface_pressure, 50000.0)
    target = np.log(0.5)
    np.testing.assert_allclose(height, 100.0 - R * (a * target + b * target**2 / 2), rtol=1e-12)


def test_geopotential_under_the_lowest_level_is_an_error():
    with pytest.raises(ValueError, match="below the lowest model level"):
        pl.geopotential(np.ones((6, 1)), np.ones((6, 1)), SIGMA, np.array([5e4]), 5e4)


def standard_atmosphere(surface_pressure, sea_level_temperature=288.15, sea_level_pressure=101325.0):
    """Temperatures on SIGMA and surface geopotential where the lapse rate is 6.5 K/km throughout."""
    exponent = LAPSE * R / G
    ground = sea_level_temperature * (surface_pressure / sea_level_pressure) ** exponent
    temperatures = (
        sea_level_temperature * (SIGMA[:, None] * surface_pressure / sea_level_pressure) ** exponent
    )
    return temperatures, G * (sea_level_temperature - ground) / LAPSE


@pytest.mark.parametrize("surface_pressure", [101325.0, 95000.0, 80000.0])
def test_sea_level_pressure_of_the_standard_atmosphere(surface_pressure):
    temperatures, ground = standard_atmosphere(np.array([surface_pressure]))
    msl = pl.mean_sea_level_pressure(temperatures, SIGMA, np.array([surface_pressure]), ground)
    # The series is cut after its third term, and T* is linear in p below the lowest level.
    assert msl[0] == pytest.approx(101325.0, abs=15.0)


def test_sea_level_pressure_is_the_surface_pressure_at_sea_level():
    msl = pl.mean_sea_level_pressure(np.full((6, 1), 300.0), SIGMA, np.array([98765.0]), np.array([0.0]))
    assert msl[0] == 98765.0


def test_sea_level_pressure_of_a_cold_plateau_uses_the_moderated_temperature():
    # T* = 235 K (< 255 K) becomes 245 K; ground 2000 m. Worked by hand from Trenberth et al. (1993), eq. 11.
    t_lowest = 235.0 / (1 + pl.ALPHA * (1 / 0.95 - 1))
    msl = pl.mean_sea_level_pressure(
        np.full((6, 1), t_lowest), SIGMA, np.array([75000.0]), np.array([2000.0 * G])
    )
    x = 2000.0 * G / (R * 245.0)
    expected = 75000.0 * np.exp(x * (1 - pl.ALPHA * x / 2 + (pl.ALPHA * x) ** 2 / 3))
    assert msl[0] == pytest.approx(expected, rel=1e-12)


def test_sea_level_pressure_of_a_hot_surface_is_isothermal_at_the_mean_with_the_limit():
    # T* = 300 K > 290.5 K: no lapse rate, T = (290.5 + 300) / 2.
    t_lowest = 300.0 / (1 + pl.ALPHA * (1 / 0.95 - 1))
    msl = pl.mean_sea_level_pressure(
        np.full((6, 1), t_lowest), SIGMA, np.array([90000.0]), np.array([1000.0 * G])
    )
    assert msl[0] == pytest.approx(90000.0 * np.exp(1000.0 * G / (R * 295.25)), rel=1e-12)


def test_sea_level_pressure_where_only_sea_level_is_hot_ends_at_the_limit_temperature():
    # T* = 285 K at 2000 m: extrapolated to 298 K; the lapse rate is cut to reach 290.5 K.
    t_lowest = 285.0 / (1 + pl.ALPHA * (1 / 0.95 - 1))
    msl = pl.mean_sea_level_pressure(
        np.full((6, 1), t_lowest), SIGMA, np.array([80000.0]), np.array([2000.0 * G])
    )
    reduced = (290.5 - 285.0) / 2000.0
    exact = 80000.0 * (290.5 / 285.0) ** (G / (R * reduced))
    assert msl[0] == pytest.approx(exact, abs=5.0)


def test_temperature_goes_on_at_the_standard_lapse_rate_under_the_ground():
    temperatures, ground = standard_atmosphere(np.array([80000.0]))
    value = pl.temperature(temperatures, SIGMA, np.array([80000.0]), ground, 85000.0)
    exact = 288.15 * (85000.0 / 101325.0) ** pl.ALPHA
    # T* is linear in p between sigma 0.95 and the ground.
    assert value[0] == pytest.approx(exact, abs=0.06)


def test_temperature_under_a_hot_plateau_aims_at_298_kelvin_at_sea_level():
    t_lowest = 285.0 / (1 + pl.ALPHA * (1 / 0.95 - 1))
    profile, pressure, ground = np.full((6, 1), t_lowest), np.array([60000.0]), np.array([4000.0 * G])
    value = pl.temperature(profile, SIGMA, pressure, ground, 85000.0)
    alpha = R * (298.0 - 285.0) / (4000.0 * G)
    assert value[0] == pytest.approx(285.0 * (85.0 / 60.0) ** alpha, rel=1e-12)
