"""Horizontal grids as lists of cells: regular, Gaussian, curvilinear and unstructured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

_NAMES = {
    "latitude": ("latitude", "lat", "nav_lat", "clat"),
    "longitude": ("longitude", "lon", "nav_lon", "clon"),
}
_UNITS = {
    "latitude": ("degrees_north", "degree_north", "degrees_n", "degree_n"),
    "longitude": ("degrees_east", "degree_east", "degrees_e", "degree_e"),
}
_SAME_PLACE = 1e-4  # degrees


@dataclass(frozen=True)
class Grid:
    """The cells of a field, in the order of the file.

    Attributes:
        dims: the horizontal dimensions of the field.
        shape: their sizes, (latitude, longitude) on a latitude-longitude grid.
        latitudes: (cell,) float64, degrees.
        longitudes: (cell,) float64, degrees.
        resolution: name of the grid: `5.625` (degrees), `N16` (Gaussian), or its shape.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    latitudes: np.ndarray
    longitudes: np.ndarray
    resolution: str

    def equals(self, other: Grid) -> bool:
        """Whether the cells are the same, to 0.0001 degrees."""
        mine, theirs = ([grid.latitudes, grid.longitudes] for grid in (self, other))
        return self.shape == other.shape and np.allclose(mine, theirs, rtol=0, atol=_SAME_PLACE)

    def __str__(self) -> str:
        lat, lon = self.latitudes, self.longitudes
        shape = "x".join(map(str, self.shape))
        return f"{shape} cells, latitudes {lat[0]:g} to {lat[-1]:g}, longitudes {lon[0]:g} to {lon[-1]:g}"


def find_grid(dataset: xr.Dataset, file: str, coordinates: Mapping[str, str]) -> Grid:
    """Find the latitudes and longitudes of a file, by the names in `coordinates` or else by their attributes.

    Raises:
        ValueError: naming `file`, if they cannot be found or understood.
    """
    lat, lon = (_find(dataset, file, what, coordinates) for what in ("latitude", "longitude"))
    latitudes, longitudes = (_degrees(array, file) for array in (lat, lon))
    for name, values, kind, end in ((lat.name, latitudes, "lat", 90), (lon.name, longitudes, "long", 360)):
        if (largest := np.abs(values).max()) > end + _SAME_PLACE:
            raise ValueError(f"{file}: {name} runs to {largest:g}; {kind}itudes end at {end} degrees.")
    if lat.ndim == lon.ndim == 1 and lat.dims != lon.dims:
        resolution = _resolution(latitudes, longitudes)
        latitudes, longitudes = np.meshgrid(latitudes, longitudes, indexing="ij")
        dims: tuple[str, ...] = (str(lat.dims[0]), str(lon.dims[0]))
    elif lat.dims == lon.dims and lat.ndim:
        dims = tuple(map(str, lat.dims))
        resolution = "x".join(map(str, lat.shape))
    else:
        raise ValueError(f"{file}: {lat.name}{lat.dims} and {lon.name}{lon.dims} do not span a grid.")
    return Grid(dims, latitudes.shape, latitudes.ravel(), longitudes.ravel(), resolution)


def check_distinct(grid: Grid, file: str) -> None:
    """Check that no two cells have the same latitude and longitude, as with both 0 and 360 degrees east.

    Raises:
        ValueError: if two do.
    """
    # In multiples of 0.0001 degrees. The many longitudes of a pole count as different cells.
    lat = np.round(grid.latitudes / _SAME_PLACE).astype(np.int64)
    lon = np.round(grid.longitudes / _SAME_PLACE).astype(np.int64) % round(360 / _SAME_PLACE)
    _, first, counts = np.unique(np.stack([lat, lon]), axis=1, return_index=True, return_counts=True)
    if counts.max() > 1:
        cell = first[np.argmax(counts)]
        raise ValueError(
            f"{file}: two cells lie at latitude {grid.latitudes[cell]:g}, longitude "
            f"{grid.longitudes[cell] % 360:g} degrees east. Remove the repeated meridian or cell."
        )


def _find(dataset: xr.Dataset, file: str, what: str, coordinates: Mapping[str, str]) -> xr.DataArray:
    if what in coordinates:
        if coordinates[what] not in dataset.variables:
            raise ValueError(f"{file}: there is no {coordinates[what]!r}, the {what} in the recipe.")
        return dataset[coordinates[what]]
    described = [
        str(name)
        for name, array in dataset.variables.items()
        if array.attrs.get("standard_name") == what or str(array.attrs.get("units")).lower() in _UNITS[what]
    ]
    named = [str(name) for name in dataset.variables if str(name).lower() in _NAMES[what]]
    found = described if len(described) == 1 else named
    kinds = (array.attrs.get("GRIB_gridType") for array in dataset.values())
    kind = next(filter(None, kinds), None)
    if not found and kind:
        name, operator = (
            ("sh (spherical harmonics)", "sp2gpl") if kind == "sh" else (kind, "-setgridtype,regular")
        )
        raise ValueError(
            f"{file}: the fields are on the grid {name}, without latitudes and longitudes. Convert them to a "
            f"latitude-longitude grid first, for example with cdo {operator} IN OUT."
        )
    if len(found) != 1:
        known = ", ".join(map(str, dataset.coords)) or "none"
        raise ValueError(
            f"{file}: cannot tell which coordinate is the {what} among {known}. Say so in the recipe, for "
            f"example coordinates: {{{what}: y}}."
        )
    return dataset[found[0]]


def _degrees(array: xr.DataArray, file: str) -> np.ndarray:
    if array.dtype.kind not in "iuf" or not np.isfinite(array.values).all():
        raise ValueError(f"{file}: the coordinate {array.name} holds values that are not finite numbers.")
    values = array.values.astype(np.float64)
    return np.degrees(values) if str(array.attrs.get("units")).startswith("rad") else values


def _resolution(latitudes: np.ndarray, longitudes: np.ndarray) -> str:
    """Name of a latitude-longitude grid, given its two axes."""
    rows = len(latitudes)
    gaussian = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))
    if rows % 2 == 0 and np.allclose(np.sort(latitudes), gaussian, rtol=0, atol=1e-2):
        return f"N{rows // 2}"
    steps = np.abs(np.concatenate([np.diff(latitudes), np.diff(longitudes)]))
    if len(steps) and np.allclose(steps, steps[0], rtol=0, atol=1e-3):
        return f"{round(float(steps[0]), 4):g}"
    return f"{rows}x{len(longitudes)}"
