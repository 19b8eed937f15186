"""From sigma levels to pressure levels and mean sea level, column by column.

Profiles are (level, ...) with levels downwards, sigma = p / p_s is (level,), everything else is (...).
Between levels, temperature, wind and humidity are linear in ln p and geopotential is hydrostatic. Below the
ground, ECMWF's convention holds (IFS documentation CY47R3, part II; Trenberth, Berry & Buja 1993,
NCAR/TN-396+STR): a standard lapse rate for temperature, constant wind and humidity.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRAVITY = 9.81  # m s-2
GAS_CONSTANT = 287.0  # J kg-1 K-1, dry air
LAPSE_RATE = 0.0065  # K m-1
ALPHA = LAPSE_RATE * GAS_CONSTANT / GRAVITY  # T ~ p^ALPHA in an atmosphere of constant lapse rate


def interpolate(profile: NDArray, sigma: NDArray, surface_pressure: NDArray, pressure: float) -> NDArray:
    """Return `profile` at `pressure` (Pa), linear in ln p; constant below the lowest level.

    Raises:
        ValueError: the pressure is above the highest level somewhere.
    """
    upper, weight = _bracket(sigma, surface_pressure, pressure)
    above, below = _take(profile, upper), _take(profile, upper + 1)
    return above + np.minimum(weight, 1.0) * (below - above)


def temperature(
    profile: NDArray,
    sigma: NDArray,
    surface_pressure: NDArray,
    surface_geopotential: NDArray,
    pressure: float,
) -> NDArray:
    """Return the temperature (K) at `pressure` (Pa), also below the ground.

    Between the lowest level and the surface, and below it, the lapse rate is 6.5 K km-1. Over ground higher
    than 2000 m it is reduced, so that the temperature at sea level does not exceed 298 K: extrapolation below
    a heated plateau would be far too warm.
    """
    surface = surface_temperature(profile, sigma)
    profile = np.concatenate([profile, surface[None]])
    inside = interpolate(profile, np.append(sigma, 1.0), surface_pressure, pressure)
    depth = np.maximum(np.log(pressure / surface_pressure), 0.0)
    return inside * np.exp(_plateau_alpha(surface, surface_geopotential) * depth)


def geopotential(
    profile: NDArray, temperatures: NDArray, sigma: NDArray, surface_pressure: NDArray, pressure: float
) -> NDArray:
    """Return the geopotential (m2 s-2) at `pressure` (Pa), from that at the model levels.

    dφ/dx = -R T in x = ln p: with T linear in x, φ is the parabola through both levels.

    Raises:
        ValueError: the pressure is above the highest or below the lowest level somewhere.
    """
    upper, weight = _bracket(sigma, surface_pressure, pressure)
    if (weight > 1).any():
        raise ValueError(f"{pressure} Pa is below the lowest model level (sigma {sigma[-1]:.3f}) somewhere.")
    step = np.log(sigma)[upper + 1] - np.log(sigma)[upper]
    linear = (1 - weight) * _take(profile, upper) + weight * _take(profile, upper + 1)
    warming = _take(temperatures, upper + 1) - _take(temperatures, upper)
    return linear + 0.5 * GAS_CONSTANT * warming * step * weight * (1 - weight)


def mean_sea_level_pressure(
    temperatures: NDArray, sigma: NDArray, surface_pressure: NDArray, surface_geopotential: NDArray
) -> NDArray:
    """Return the pressure (Pa) at mean sea level, from the lowest level's temperature and 6.5 K km-1.

    Cold (< 255 K) and hot (> 290.5 K at sea level) columns are moderated as in the IFS (Trenberth et al.
    1993, section 3): plain extrapolation gives highs of 1070 hPa over Siberia and Antarctica, and heat lows
    over Tibet.
    """
    limit = 290.5
    at_surface = surface_temperature(temperatures, sigma)
    at_sea_level = at_surface + LAPSE_RATE * surface_geopotential / GRAVITY
    # α φ = R (T_sea - T_surface); safe at φ = 0, where the answer is the surface pressure.
    height = np.where(np.abs(surface_geopotential) < 1e-3, 1e-3, surface_geopotential)
    hot = at_sea_level > limit
    alpha = np.where(hot, np.maximum(GAS_CONSTANT * (limit - at_surface) / height, 0.0), ALPHA)
    alpha = np.where(hot & (at_surface > limit), 0.0, alpha)
    at_surface = np.where(hot & (at_surface > limit), 0.5 * (limit + at_surface), at_surface)
    at_surface = np.where(at_surface < 255.0, 0.5 * (255.0 + at_surface), at_surface)
    x = surface_geopotential / (GAS_CONSTANT * at_surface)
    return surface_pressure * np.exp(x * (1 - alpha * x / 2 + (alpha * x) ** 2 / 3))


def surface_temperature(temperatures: NDArray, sigma: NDArray) -> NDArray:
    """Return T at the ground (K), extrapolated from the lowest level at 6.5 K km-1 (T* of the IFS)."""
    return temperatures[-1] * (1 + ALPHA * (1 / sigma[-1] - 1))


def _plateau_alpha(surface: NDArray, surface_geopotential: NDArray) -> NDArray:
    height = np.maximum(surface_geopotential / GRAVITY, 1.0)
    at_sea_level = surface + LAPSE_RATE * height
    share = np.clip((height - 2000.0) / 500.0, 0.0, 1.0)
    at_sea_level = (1 - share) * at_sea_level + share * np.minimum(at_sea_level, 298.0)
    return np.maximum(GAS_CONSTANT * (at_sea_level - surface) / (GRAVITY * height), 0.0)


def _bracket(sigma: NDArray, surface_pressure: NDArray, pressure: float) -> tuple[NDArray, NDArray]:
    """Return the index of the level above `pressure`, and the weight of the next (> 1: below both)."""
    levels, target = np.log(sigma), np.log(pressure / surface_pressure)
    if (target < levels[0]).any():
        raise ValueError(f"{pressure} Pa is above the highest model level (sigma {sigma[0]:.3f}) somewhere.")
    upper = np.clip(np.searchsorted(levels, target, side="right") - 1, 0, len(levels) - 2)
    return upper, (target - levels[upper]) / (levels[upper + 1] - levels[upper])


def _take(profile: NDArray, index: NDArray) -> NDArray:
    return np.take_along_axis(profile, index[None], axis=0)[0]
