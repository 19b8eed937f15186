"""Fields on cells as rows and columns of pixels, and coastlines among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from diffusion_lab.graphs.sphere import to_unit_vectors
from diffusion_lab.plots.maps import is_grid, western_edge

_PIXELS = 4096  # of the raster of an unstructured grid


class Raster:
    """Which cell each pixel of a plate carrée picture shows, north and west first.

    The rows and columns of a grid are kept as they are; of other cells, each pixel shows the nearest.

    Args:
        latitudes: (cell,) degrees north.
        longitudes: (cell,) degrees east.
        field_shape: sizes of the grid that `cell` flattens.

    Attributes:
        rows: (row,) degrees north.
        columns: (column,) degrees east, −180 … 180 on the globe.
        cells: (row, column) numbers of cells.
        stretch: height of a pixel over its width on the screen.
    """

    def __init__(self, latitudes: ArrayLike, longitudes: ArrayLike, field_shape: Sequence[int] = ()) -> None:
        latitudes, longitudes = np.asarray(latitudes, float), np.asarray(longitudes, float)
        west, whole_earth = western_edge(longitudes)
        longitudes = west + (longitudes - west) % 360
        if is_grid(latitudes, longitudes, field_shape):
            grid = np.arange(latitudes.size).reshape(field_shape)
            north, east = latitudes.reshape(field_shape)[:, 0], longitudes.reshape(field_shape)[0]
            down, right = np.argsort(-north), np.argsort(east)
            self.rows, self.columns, self.cells = north[down], east[right], grid[np.ix_(down, right)]
        else:
            self.rows, self.columns = _pixel_centres(latitudes, longitudes, west, whole_earth)
            centres = to_unit_vectors(
                *(a.ravel() for a in np.meshgrid(self.rows, self.columns, indexing="ij"))
            )
            _, nearest = cKDTree(to_unit_vectors(latitudes, longitudes)).query(centres)
            self.cells = nearest.reshape(len(self.rows), len(self.columns))
        middle = 0.0 if whole_earth else np.deg2rad(self.rows.mean())
        self.stretch = _spacing(self.rows) / _spacing(self.columns) / float(np.cos(middle))

    def __call__(self, field: ArrayLike) -> NDArray[np.float32]:
        """A field (cell,) as pixels (row, column)."""
        return np.asarray(field, np.float32)[self.cells]

    def coastlines(self, land: ArrayLike) -> NDArray[np.float32]:
        """Where the land fraction (cell,) crosses one half: (point, 2) column and row, NaN between lines."""
        fraction = self(land)
        if min(fraction.shape) < 2 or np.ptp(fraction) == 0:
            return np.empty((0, 2), np.float32)
        contours = Figure().subplots().contour(fraction, [0.5]).allsegs[0]
        gap = np.full((1, 2), np.nan)
        return np.concatenate([part for line in contours for part in (line, gap)]).astype(np.float32)


def _pixel_centres(
    latitudes: NDArray, longitudes: NDArray, west: float, whole_earth: bool
) -> tuple[NDArray, NDArray]:
    south, north = (-90.0, 90.0) if whole_earth else (latitudes.min(), latitudes.max())
    width = 360.0 if whole_earth else max(np.ptp(longitudes), 1e-3)
    height = max(north - south, 1e-3)
    count = min(_PIXELS, 4 * latitudes.size)
    rows = max(2, round((count * height / width) ** 0.5))
    columns = max(2, round(count / rows))
    return (
        north - height * (np.arange(rows) + 0.5) / rows,
        west + width * (np.arange(columns) + 0.5) / columns,
    )


def _spacing(values: NDArray) -> float:
    return float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 1.0
