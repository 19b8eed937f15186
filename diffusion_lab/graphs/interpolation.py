"""Linear interpolation from the cells of any grid to any place on the sphere."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from diffusion_lab.graphs.sphere import Float64, to_unit_vectors

# A triangle with a side this many times the usual one spans a gap: it lies outside of a limited area.
_GAP = 4.0


def interpolation_weights(
    cells: tuple[Float64, Float64], places: tuple[Float64, Float64]
) -> tuple[NDArray[np.int64], Float64]:
    """The cells around each place and their weights in Σ_k weights[i, k] · field[cells[i, k]].

    The convex hull of the cells on the unit sphere is their Delaunay triangulation. A place lies in the
    triangle that the ray from the centre of the sphere to it passes through; its weights are the
    barycentric coordinates of that point. A constant is kept, and so is the value at a cell.

    Args:
        cells: latitudes and longitudes of the grid, (cell,) degrees each, at least four.
        places: latitudes and longitudes, (place,) degrees each.

    Returns:
        Cell numbers and weights, (place, 3) each; weights are at least 0 and sum to 1.

    Raises:
        ValueError: naming the first place that lies outside a grid of limited area.
    """
    points = to_unit_vectors(*cells)
    triangles = ConvexHull(points).simplices
    corners = points[triangles]  # (triangle, corner, xyz)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(axis=1)
    inside = longest < _GAP * np.median(longest)
    with np.errstate(divide="ignore"):
        solvable = np.abs(np.linalg.det(corners)) > 1e-12
    triangles, inverses = triangles[inside & solvable], np.linalg.inv(corners[inside & solvable])
    chosen, weights = [], []
    for latitude, longitude, place in zip(*places, to_unit_vectors(*places), strict=True):
        coordinates = place @ inverses
        best = int(np.argmax(coordinates.min(axis=1)))
        if coordinates[best].min() < -1e-6:
            raise ValueError(f"({latitude:g}°N, {longitude:g}°E) lies outside the grid")
        chosen.append(triangles[best])
        positive = coordinates[best].clip(min=0)
        weights.append(positive / positive.sum())
    return np.array(chosen).reshape(-1, 3), np.array(weights).reshape(-1, 3)
