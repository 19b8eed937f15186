import numpy as np
import pytest

from diffusion_lab.graphs import area_weights, is_limited_area
from diffusion_lab.graphs.icosahedron import refined_icosahedron
from diffusion_lab.graphs.sphere import to_latitude_longitude


def grid(latitudes, longitudes):
    return [axis.ravel() for axis in np.meshgrid(latitudes, longitudes, indexing="ij")]


def gaussian(num_latitudes):
    nodes, weights = np.polynomial.legendre.leggauss(num_latitudes)
    return np.rad2deg(np.arcsin(nodes))[::-1], weights[::-1] / 2


def test_rows_of_a_gaussian_grid_are_bounded_by_great_circles():
    """The cells of two rows meet on the great circle that crosses their mid latitude m at right angles.

    Over a longitude step d it cuts off the area d - 2 arcsin(sin m sin(d/2)) on the side of the pole.
    """
    latitudes, _ = gaussian(32)
    longitudes = np.arange(64) * 360 / 64
    middle, half = np.deg2rad((latitudes[1:] + latitudes[:-1]) / 2), np.pi / 64
    below_pole = np.concatenate([[half], np.arcsin(np.sin(middle) * np.sin(half)), [-half]])
    rows = area_weights(*grid(latitudes, longitudes)).reshape(32, 64)
    np.testing.assert_allclose(
        rows, np.outer(-np.diff(below_pole) / (2 * half), np.full(64, 1 / 64)), rtol=1e-9
    )


def test_gaussian_weights_are_reproduced_away_from_the_poles():
    latitudes, exact = gaussian(32)
    rows = area_weights(*grid(latitudes, np.arange(64) * 360 / 64)).reshape(32, 64).sum(axis=1)
    np.testing.assert_allclose(rows[1:-1], exact[1:-1], rtol=1e-3)
    # The rows next to the poles stand for the polar caps too; Gaussian weights do not.
    np.testing.assert_allclose(rows[[0, -1]], exact[[0, -1]], rtol=0.06)


def test_icosahedron_has_equal_weights():
    nodes, _ = refined_icosahedron(0)
    np.testing.assert_allclose(area_weights(*to_latitude_longitude(nodes)), 1 / 12)


def test_nodes_at_a_pole_share_its_cell():
    latitudes, longitudes = np.linspace(90, -90, 13), np.arange(24) * 15.0
    weights = area_weights(*grid(latitudes, longitudes)).reshape(13, 24)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights[0], weights[0, 0])
    # The polar cell is the regular 24-gon bounded by the great circles at 82.5°.
    half = np.deg2rad(7.5)
    polygon = 24 * (half * 2 - 2 * np.arcsin(np.sin(np.deg2rad(82.5)) * np.sin(half)))
    assert weights[0].sum() == pytest.approx(polygon / (4 * np.pi))


@pytest.mark.parametrize(
    ("latitudes", "longitudes"),
    [
        (np.linspace(70, 35, 11), np.linspace(-10, 40, 13)),
        (np.linspace(-20, 20, 9), np.linspace(350, 430, 17)),  # across the meridian
        (np.linspace(-30, 30, 13), np.arange(72) * 5.0),  # a belt round the earth
        (np.linspace(40, 40.1, 6), np.linspace(10, 10.1, 6)),  # 2 km apart
    ],
)
def test_cells_of_a_limited_area_end_half_a_spacing_outside(latitudes, longitudes):
    weights = area_weights(*grid(latitudes, longitudes))
    exact = np.repeat(np.cos(np.deg2rad(latitudes)), len(longitudes))
    np.testing.assert_allclose(weights, exact / exact.sum(), rtol=0.025)


def test_scattered_area_gives_no_node_a_hemisphere():
    rng = np.random.default_rng(0)
    latitudes, longitudes = rng.uniform(35, 70, 150), rng.uniform(-10, 40, 150)
    weights = area_weights(latitudes, longitudes)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() > 0
    assert weights.max() < 6 / 150


def test_weights_follow_the_nodes():
    latitudes, longitudes = grid(gaussian(12)[0], np.arange(20) * 18.0)
    order = np.random.default_rng(1).permutation(len(latitudes))
    np.testing.assert_allclose(
        area_weights(latitudes[order], longitudes[order]),
        area_weights(latitudes, longitudes)[order],
        rtol=1e-9,
    )


def test_limited_areas_are_told_from_global_grids():
    wide = grid(gaussian(32)[0], np.arange(64) * 360 / 64)
    assert not is_limited_area(*wide)
    assert is_limited_area(*np.array(wide)[:, wide[0] > 0])
    assert is_limited_area(*np.array(wide)[:, np.abs(wide[0]) < 30])
    # A global grid refined over Europe is still global.
    inside = (np.abs(wide[0] - 50) < 10) & (np.abs(wide[1] - 20) < 15)
    stretched = np.concatenate(
        [np.array(wide)[:, ~inside], grid(np.linspace(42, 58, 33), np.linspace(6, 34, 57))], axis=1
    )
    assert not is_limited_area(*stretched)
    assert not is_limited_area(*to_latitude_longitude(np.random.default_rng(0).normal(size=(300, 3))))


def test_nodes_on_one_circle_are_refused():
    with pytest.raises(ValueError, match="5 distinct nodes span no area"):
        area_weights(np.zeros(5), np.arange(5) * 10.0)
