import numpy as np
import pytest
from matplotlib.figure import Figure

from diffusion_lab.plots import field_map


@pytest.fixture
def ax():
    return Figure().subplots()


def grid(latitudes, longitudes):
    return [axis.ravel() for axis in np.meshgrid(latitudes, longitudes, indexing="ij")]


def test_every_cell_is_drawn_at_its_place(ax):
    latitudes, longitudes = grid([60.0, 0.0, -60.0], np.arange(0, 360, 20.0))
    field = latitudes * 1000 + (longitudes + 180) % 360 - 180
    mesh = field_map(ax, field, latitudes, longitudes, (3, 18))
    # From 180°W eastwards, the first column again at 180°E.
    expected = np.array([60.0, 0.0, -60.0])[:, None] * 1000 + [*range(-180, 180, 20), -180]
    np.testing.assert_array_equal(mesh.get_array(), expected)
    edges = mesh.get_coordinates()
    np.testing.assert_allclose(edges[0, :, 0], np.arange(-190, 191, 20))
    np.testing.assert_allclose(edges[:, 0, 1], [90, 30, -30, -90])
    assert ax.get_xlim() == (-180, 180)
    assert ax.get_ylim() == (-90, 90)
    assert ax.get_aspect() == 1.0


def test_area_across_greenwich_stays_in_one_piece(ax):
    latitudes, longitudes = grid([50.0, 40.0, 30.0], [350.0, 0.0, 10.0])
    mesh = field_map(ax, np.arange(9.0), latitudes, longitudes, (3, 3))
    np.testing.assert_array_equal(mesh.get_array(), np.arange(9.0).reshape(3, 3))
    np.testing.assert_allclose(ax.get_xlim(), (-15, 15))
    np.testing.assert_allclose(ax.get_ylim(), (25, 55))
    assert ax.get_aspect() == pytest.approx(1 / np.cos(np.deg2rad(40)))
    labels = [ax.xaxis.get_major_formatter()(x) for x in (-10, 0, 10)]
    assert labels == ["10°W", "0°", "10°E"]


def test_nodes_without_rows_are_triangles_that_close_over_the_date_line(ax):
    rng = np.random.default_rng(0)
    latitudes, longitudes = rng.uniform(-90, 90, 400), rng.uniform(0, 360, 400)
    triangles = field_map(ax, np.arange(400.0), latitudes, longitudes)
    values = triangles.get_array()
    np.testing.assert_array_equal(values[:400], np.arange(400.0))
    # Nodes within 20° of the cut are repeated on its other side.
    assert len(values) == 400 + np.sum(np.abs(longitudes - 180) < 20)


def test_coast_runs_where_half_is_land(ax):
    latitudes, longitudes = grid(np.linspace(60, 40, 11), np.linspace(0, 20, 11))
    field_map(ax, latitudes, latitudes, longitudes, (11, 11), land=(longitudes >= 9).astype(float))
    (coast,) = (c for c in ax.collections if "Contour" in type(c).__name__)
    np.testing.assert_allclose(np.concatenate([p.vertices for p in coast.get_paths()])[:, 0], 9.0)


def test_colours_span_the_limits_or_the_field(ax):
    latitudes, longitudes = grid([50.0, 40.0, 30.0], [0.0, 10.0, 20.0])
    assert field_map(ax, latitudes, latitudes, longitudes, (3, 3)).get_clim() == (30, 50)
    assert field_map(ax, latitudes, latitudes, longitudes, (3, 3), limits=(0, 1)).get_clim() == (0, 1)


def test_wrong_shapes_are_refused(ax):
    latitudes, longitudes = grid([50.0, 40.0, 30.0], [0.0, 10.0, 20.0])
    with pytest.raises(ValueError, match=r"each of 9 cells, not shapes \(2, 9\)"):
        field_map(ax, np.zeros((2, 9)), latitudes, longitudes)
    with pytest.raises(ValueError, match=r"field_shape \[3, 4\] does not hold 9 cells"):
        field_map(ax, np.zeros(9), latitudes, longitudes, (3, 4))
