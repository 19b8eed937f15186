"""Area weights of nodes on the sphere or a limited area."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError, SphericalVoronoi, cKDTree

from diffusion_lab.graphs.sphere import Float64, to_unit_vectors

# Nodes closer than this (6 m on Earth) are one point, e.g. the row of a regular grid that lies on a pole.
_SAME_POINT = 1e-6


def _distinct(vectors: Float64) -> tuple[Float64, NDArray[np.int64]]:
    """The distinct points among `vectors`, and for each vector the number of its point."""
    pairs = cKDTree(vectors).query_pairs(_SAME_POINT, output_type="ndarray")
    first = np.arange(len(vectors))
    np.minimum.at(first, pairs.max(axis=1), pairs.min(axis=1))
    kept, inverse = np.unique(first, return_inverse=True)
    return vectors[kept], inverse


def _spacing(points: Float64) -> float:
    """The largest distance from a point to its nearest neighbour (chord; nearly radians)."""
    return float(cKDTree(points).query(points, k=2)[0][:, 1].max())


def is_limited_area(latitudes: ArrayLike, longitudes: ArrayLike) -> bool:
    """Whether nodes leave a hole in the sphere that is far larger than the distance between them.

    That is, the radius of the largest empty cap (a vertex of the Voronoi diagram is the centre of one)
    exceeds three times the largest distance between nearest neighbours. On a global grid the two are about
    equal.

    Args:
        latitudes: (N,) degrees north.
        longitudes: (N,) degrees east.

    Raises:
        ValueError: if the nodes are fewer than four points, or all on one circle.
    """
    points, _ = _distinct(to_unit_vectors(latitudes, longitudes))
    return _is_limited_area(points)


def _is_limited_area(points: Float64) -> bool:
    hull = _hull(points)
    # A face of the convex hull at distance h from the origin carries an empty cap of cosine h.
    radius = np.arccos(np.clip(-hull.equations[:, 3].max(), -1, 1))
    return bool(radius > 3 * _spacing(points))


def _hull(points: Float64) -> ConvexHull:
    """The convex hull of points on the sphere, whose faces are their Delaunay triangles."""
    try:
        return ConvexHull(points)
    except (QhullError, ValueError) as error:
        raise ValueError(
            f"{len(points)} distinct nodes span no area: at least four are needed, not all on one circle"
        ) from error


def _continuation(points: Float64) -> Float64:
    """Points that continue the pattern of a limited area's nodes beyond its edge.

    Each Delaunay neighbour is mirrored through its node (on a lattice: the next lattice point); the images
    that fall among the nodes are dropped. The cell of an outer node then ends half a spacing outside.
    """
    edges = _hull(points).simplices[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    node, neighbour = points[edges[:, 0]], points[edges[:, 1]]
    image = 2 * np.sum(node * neighbour, axis=1, keepdims=True) * node - neighbour
    to_nodes, _ = cKDTree(points).query(image)
    outside = to_nodes > 0.75 * np.linalg.norm(node - neighbour, axis=1)
    return _distinct(image[outside])[0]


def area_weights(latitudes: ArrayLike, longitudes: ArrayLike) -> Float64:
    """Areas of the nodes' Voronoi cells on the sphere, scaled to sum to 1.

    A limited area's cells end about half a spacing outside its outer nodes instead of running round the
    sphere. Nodes at the same point share its cell.

    Args:
        latitudes: (N,) degrees north.
        longitudes: (N,) degrees east.

    Returns:
        (N,) positive, with sum 1.

    Raises:
        ValueError: if the nodes are fewer than four points, or all on one circle.
    """
    points, inverse = _distinct(to_unit_vectors(latitudes, longitudes))
    limited = _is_limited_area(points)
    generators = np.concatenate([points, _continuation(points)]) if limited else points
    areas = SphericalVoronoi(generators, threshold=_SAME_POINT / 10).calculate_areas()[: len(points)]
    weights = (areas / np.bincount(inverse))[inverse]
    return weights / weights.sum()
