import numpy as np

from diffusion_lab.widgets.raster import Raster

ROWS, COLUMNS = np.array([-60.0, 0.0, 60.0]), 22.5 * np.arange(16)
LATITUDES, LONGITUDES = (a.ravel() for a in np.meshgrid(ROWS, COLUMNS, indexing="ij"))


def test_a_grid_from_the_south_and_from_greenwich_is_shown_north_and_west_first():
    raster = Raster(LATITUDES, LONGITUDES, (3, 16))
    assert raster.rows.tolist() == [60, 0, -60]
    assert raster.columns.tolist() == (22.5 * np.arange(-8, 8)).tolist()
    np.testing.assert_array_equal(raster(LATITUDES)[:, 0], [60, 0, -60])
    np.testing.assert_array_equal(raster(LONGITUDES)[0, [0, 8, 15]], [180, 0, 157.5])
    assert raster(LATITUDES).dtype == np.float32


def test_a_pixel_of_other_cells_shows_the_nearest():
    rng = np.random.default_rng(0)
    latitudes = np.rad2deg(np.arcsin(rng.uniform(-1, 1, 500)))
    longitudes = rng.uniform(0, 360, 500)
    raster = Raster(latitudes, longitudes, (500,))
    assert raster.columns[0] < -175 and raster.columns[-1] > 175
    for row, column in [(0, 0), (7, 20), (-1, -1)]:
        north, east = np.deg2rad(raster.rows[row]), np.deg2rad(raster.columns[column])
        cosine = np.sin(north) * np.sin(np.deg2rad(latitudes)) + np.cos(north) * np.cos(
            np.deg2rad(latitudes)
        ) * np.cos(east - np.deg2rad(longitudes))
        assert raster.cells[row, column] == cosine.argmax()


def test_a_region_keeps_its_bounds():
    rng = np.random.default_rng(0)
    latitudes, longitudes = rng.uniform(40, 60, 300), rng.uniform(-10, 20, 300) % 360
    raster = Raster(latitudes, longitudes, (300,))
    assert 40 < raster.rows.min() < raster.rows.max() < 60
    assert -10 < raster.columns.min() < raster.columns.max() < 20


def test_coastlines_run_between_land_and_sea():
    raster = Raster(LATITUDES, LONGITUDES, (3, 16))
    lines = raster.coastlines((LATITUDES > 30).astype(float))
    drawn = lines[np.isfinite(lines[:, 0])]
    np.testing.assert_allclose(drawn[:, 1], 0.5)  # between the first row and the second
    assert np.isnan(lines[-1]).all()
    assert raster.coastlines(np.zeros(48)).shape == (0, 2)
