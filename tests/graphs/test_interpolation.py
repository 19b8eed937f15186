"""Interpolation to places: exact at cells, linear between them, second order on smooth fields."""

import numpy as np
import pytest

from diffusion_lab.graphs.interpolation import interpolation_weights


def regular_grid(rows, west=0.0, east=360.0, south=-90.0, north=90.0):
    """Cell centres of a grid of rows × 2 rows."""
    latitudes = north - (np.arange(rows) + 0.5) * (north - south) / rows
    longitudes = west + (np.arange(2 * rows) + 0.5) * (east - west) / (2 * rows)
    return np.repeat(latitudes, 2 * rows), np.tile(longitudes, rows)


def wave(latitudes, longitudes):
    return np.cos(np.deg2rad(latitudes)) ** 2 * np.sin(2 * np.deg2rad(longitudes))


def interpolated(grid, places):
    cells, weights = interpolation_weights(grid, places)
    return (wave(*grid)[cells] * weights).sum(1)


def test_a_cell_has_its_own_value():
    grid = regular_grid(16)
    some = np.random.default_rng(0).choice(len(grid[0]), 50, replace=False)
    places = grid[0][some], grid[1][some]
    assert interpolated(grid, places) == pytest.approx(wave(*places), abs=1e-6)


def test_halving_the_spacing_quarters_the_error():
    rng = np.random.default_rng(1)
    places = np.rad2deg(np.arcsin(rng.uniform(-0.95, 0.95, 400))), rng.uniform(-180, 540, 400)
    coarse, fine = (
        np.sqrt(np.mean((interpolated(regular_grid(rows), places) - wave(*places)) ** 2)) for rows in (16, 32)
    )
    assert 3.5 < coarse / fine < 4.5


def test_every_place_on_a_global_grid_lies_inside_the_poles_too():
    places = np.array([90.0, -90.0, 89.9, 0.0]), np.array([0.0, 77.0, 359.99, 360.0])
    _, weights = interpolation_weights(regular_grid(16), places)
    assert weights.sum(1) == pytest.approx(1)
    assert (weights >= 0).all()


def test_places_outside_a_limited_area_are_refused_by_name():
    grid = regular_grid(10, west=-30.0, east=30.0, south=40.0, north=70.0)
    inside = np.array([55.0]), np.array([3.0])
    assert interpolated(grid, inside) == pytest.approx(wave(*inside), abs=0.01)
    for outside in [(35.0, 0.0), (55.0, 60.0), (-55.0, 180.0)]:
        with pytest.raises(ValueError, match=r"outside the grid"):
            interpolation_weights(grid, (np.array([outside[0]]), np.array([outside[1]])))
