import numpy as np
import pytest
import xarray as xr

from diffusion_lab.making.grids import check_distinct, find_grid


def dataset(latitudes, longitudes, lat=("lat", {}), lon=("lon", {})):
    return xr.Dataset(
        coords={lat[0]: ("y", latitudes, lat[1]), lon[0]: ("x", longitudes, lon[1])},
    )


def test_regular_grid_runs_along_longitude_first():
    grid = find_grid(dataset([30.0, 10.0], [-15.0, 0.0, 15.0]), "f.nc", {})
    np.testing.assert_array_equal(grid.latitudes, [30, 30, 30, 10, 10, 10])
    np.testing.assert_array_equal(grid.longitudes, [-15, 0, 15, -15, 0, 15])
    assert (grid.dims, grid.shape) == (("y", "x"), (2, 3))


@pytest.mark.parametrize("direction", [1, -1])
def test_names_of_grids(direction):
    n16 = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))[::direction]
    assert find_grid(dataset(n16, np.arange(64) * 5.625), "f.nc", {}).resolution == "N16"
    even = (np.arange(32) * 5.625 - 87.1875)[::direction]
    assert find_grid(dataset(even, np.arange(64) * 5.625), "f.nc", {}).resolution == "5.625"
    assert find_grid(dataset([0.0, 1.0], [0.0, 2.0]), "f.nc", {}).resolution == "2x2"


def test_curvilinear_and_unstructured():
    latitudes = np.array([[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]])
    curved = xr.Dataset(coords={"nav_lat": (("j", "i"), latitudes), "nav_lon": (("j", "i"), latitudes + 1)})
    grid = find_grid(curved, "f.nc", {})
    np.testing.assert_array_equal(grid.latitudes, [10, 11, 12, 20, 21, 22])
    assert grid.shape == (2, 3)
    cells = xr.Dataset(
        coords={
            "clat": ("cell", np.radians([10.0, -20.0]), {"units": "radian", "standard_name": "latitude"}),
            "clon": ("cell", np.radians([350.0, 20.0]), {"units": "radian", "standard_name": "longitude"}),
        }
    )
    grid = find_grid(cells, "f.nc", {})
    np.testing.assert_allclose(grid.latitudes, [10, -20])
    np.testing.assert_allclose(grid.longitudes, [350, 20])
    assert (grid.dims, grid.shape) == (("cell",), (2,))


def test_coordinates_by_their_attributes_and_by_the_recipe():
    north, east = {"units": "degrees_north"}, {"standard_name": "longitude"}
    odd = dataset([1.0, 2.0], [3.0, 5.0], ("phi", north), ("lambda", east))
    assert find_grid(odd, "f.nc", {}).latitudes[0] == 1
    plain = dataset([1.0, 2.0], [3.0, 5.0], ("phi", {}), ("lambda", {}))
    with pytest.raises(
        ValueError, match=r"f\.nc: .*latitude among phi, lambda.*coordinates: \{latitude: y\}"
    ):
        find_grid(plain, "f.nc", {})
    names = {"latitude": "phi", "longitude": "lambda"}
    assert find_grid(plain, "f.nc", names).longitudes[0] == 3
    with pytest.raises(ValueError, match=r"f\.nc: there is no 'psi'"):
        find_grid(plain, "f.nc", names | {"latitude": "psi"})


@pytest.mark.parametrize(
    ("latitudes", "longitudes", "message"),
    [
        ([0.0, 1800.0], [0.0, 1.0], r"f\.nc: lat runs to 1800; latitudes end at 90"),
        ([0.0, 1.0], [0.0, 3600.0], r"f\.nc: lon runs to 3600"),
        ([0.0, np.nan], [0.0, 1.0], r"f\.nc: the coordinate lat holds values that are not finite"),
        (["a", "b"], [0.0, 1.0], r"f\.nc: the coordinate lat holds values that are not finite"),
    ],
)
def test_coordinates_that_cannot_be_understood(latitudes, longitudes, message):
    with pytest.raises(ValueError, match=message):
        find_grid(dataset(latitudes, longitudes), "f.nc", {})


def test_repeated_meridian():
    latitudes = [90.0, 0.0]
    check_distinct(find_grid(dataset(latitudes, [0.0, 120.0, 240.0]), "f.nc", {}), "f.nc")
    with pytest.raises(
        ValueError, match=r"two cells lie at latitude 0, longitude 0 degrees east|latitude 90"
    ):
        check_distinct(find_grid(dataset(latitudes, [0.0, 180.0, 360.0]), "f.nc", {}), "f.nc")
    with pytest.raises(ValueError, match="two cells"):
        check_distinct(find_grid(dataset(latitudes, [-180.0, 0.0, 180.0]), "f.nc", {}), "f.nc")


def test_grids_compare_to_a_ten_thousandth_of_a_degree():
    one = find_grid(dataset([30.0, 10.0], [0.0, 0.1]), "f.nc", {})
    single = find_grid(dataset(np.float32([30.0, 10.0]), np.float32([0.0, 0.1])), "g.nc", {})
    assert one.equals(single)
    assert not one.equals(find_grid(dataset([10.0, 30.0], [0.0, 0.1]), "h.nc", {}))
    assert not one.equals(find_grid(dataset([30.0, 20.0, 10.0], [0.0, 0.1]), "h.nc", {}))
