"""Edges between nodes, and their geometric attributes.

Edges are (2, E) int64 arrays of (source, target), sorted by target, then source: the messages to one node are
contiguous in memory.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from diffusion_lab.graphs.sphere import (
    Float64,
    chord,
    direction_seen_from,
    great_circle_distance,
    to_unit_vectors,
)

Edges = NDArray[np.int64]


def sort_edges(edges: Edges) -> Edges:
    """Sort (2, E) edges by target, then source, and drop repeated ones."""
    return np.unique(edges[::-1], axis=1)[::-1].copy()


def cutoff_edges(source: Float64, target: Float64, radius: float) -> Edges:
    """Join every source to the targets within `radius` (radians), or else to the nearest target.

    Args:
        source: (N, 3) unit vectors.
        target: (M, 3) unit vectors.
        radius: great-circle distance in radians.

    Returns:
        (2, E) edges, at least one from every source.
    """
    tree = cKDTree(target)
    within = tree.query_ball_point(source, chord(radius), return_sorted=True)
    left_out = np.array([len(targets) == 0 for targets in within])
    _, nearest = tree.query(source[left_out])
    sources = np.repeat(np.arange(len(source)), [len(targets) for targets in within])
    targets = np.concatenate([np.asarray(t, dtype=np.int64) for t in within])
    return sort_edges(
        np.stack(
            [np.concatenate([sources, np.flatnonzero(left_out)]), np.concatenate([targets, nearest])]
        ).astype(np.int64)
    )


def nearest_edges(source: Float64, target: Float64, num_nearest: int) -> Edges:
    """Join to every target (M, 3) its `num_nearest` nearest sources (N, 3).

    Returns:
        (2, M · num_nearest) edges.

    Raises:
        ValueError: if there are fewer sources than `num_nearest`.
    """
    if not 1 <= num_nearest <= len(source):
        raise ValueError(
            f"num_nearest must lie in 1…{len(source)}, the number of nodes there are, not {num_nearest}; "
            "raise refinement for more hidden nodes"
        )
    _, nearest = cKDTree(source).query(target, k=range(1, num_nearest + 1))
    return sort_edges(
        np.stack([nearest.ravel(), np.repeat(np.arange(len(target)), num_nearest)]).astype(np.int64)
    )


def multi_scale_edges(levels: list[Edges], kept: NDArray[np.bool_]) -> Edges:
    """Merge the undirected edges (E, 2) of several mesh levels into one set that runs both ways.

    Args:
        levels: the edges of each level.
        kept: (N,) which of the mesh's nodes are used; edges of other nodes are dropped.

    Returns:
        (2, E) edges between the kept nodes, numbered from 0.
    """
    edges = np.concatenate(levels) if levels else np.empty((0, 2), dtype=np.int64)
    edges = edges[kept[edges].all(axis=1)]
    edges = (np.cumsum(kept) - 1)[edges]
    return sort_edges(np.concatenate([edges, edges[:, ::-1]]).T)


def edge_attributes(source: Float64, target: Float64, edges: Edges) -> Float64:
    """Length and direction of edges.

    Args:
        source: (N, 2) latitude and longitude in degrees.
        target: (M, 2) latitude and longitude in degrees.
        edges: (2, E).

    Returns:
        (E, 3): great-circle length over that of the longest edge of the set, and the direction of the source
        as seen from the target in the target's frame (east, north), a unit vector.
    """
    senders, receivers = source[edges[0]], target[edges[1]]
    length = great_circle_distance(to_unit_vectors(*senders.T), to_unit_vectors(*receivers.T))
    direction = direction_seen_from(receivers, senders)
    longest = length.max(initial=0.0) or 1.0
    return np.concatenate([(length / longest)[:, None], direction], axis=1)
