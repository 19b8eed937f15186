"""The refined icosahedron: hidden meshes whose nodes are nearly evenly spread over the sphere.

Level 0 is the icosahedron (12 nodes, 20 faces); each level splits every face into four at the midpoints
of its edges, pushed out to the sphere. Level r has 10·4^r + 2 nodes, the first of which are those of
level r - 1, and 60·4^r directed edges.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from diffusion_lab.graphs.sphere import Float64

# The north pole is the centre of a face. The midpoints of a face's edges make its middle quarter, with the
# same centre, so that no level has a node at a pole, where east is not defined. The turn about the
# polar axis keeps the mesh's mirror planes, every 60°, off the meridians of usual grids: no data node is then
# equally far from two hidden nodes, and rounding on another machine cannot choose another neighbour.
_TURN_DEGREES = 11.3719


def _icosahedron() -> tuple[Float64, NDArray[np.int64]]:
    """Nodes (12, 3) and faces (20, 3) of the icosahedron with a face centred at the north pole."""
    golden = (1 + np.sqrt(5)) / 2
    nodes = np.array([(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)])
    nodes = np.concatenate([np.roll(nodes, shift, axis=1) for shift in range(3)])
    # Faces are the triples of nodes that are one edge (of length 2) apart from each other.
    near = np.isclose(np.linalg.norm(nodes[:, None] - nodes[None], axis=-1), 2.0)
    faces = [
        (i, j, k)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)

    up = nodes[list(faces[0])].sum(axis=0)
    up /= np.linalg.norm(up)
    ahead = nodes[faces[0][0]] - up * (nodes[faces[0][0]] @ up)
    ahead /= np.linalg.norm(ahead)
    turn = np.deg2rad(_TURN_DEGREES)
    x, y, z = nodes @ ahead, nodes @ np.cross(up, ahead), nodes @ up
    nodes = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn), z], axis=1)
    return nodes, np.array(faces, dtype=np.int64)


def _face_edges(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Undirected edges (E, 2) of triangles, each once with the lower node first, sorted."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [0, 2]]])
    return np.unique(np.sort(edges, axis=1), axis=0)


def _refine(nodes: Float64, faces: NDArray[np.int64]) -> tuple[Float64, NDArray[np.int64]]:
    """Split every face into four at the midpoints of its edges."""
    edges = _face_edges(faces)
    midpoints = nodes[edges].sum(axis=1)
    midpoints /= np.linalg.norm(midpoints, axis=1, keepdims=True)
    number = {(int(a), int(b)): len(nodes) + i for i, (a, b) in enumerate(edges)}

    def middle(a: int, b: int) -> int:
        return number[min(a, b), max(a, b)]

    finer = []
    for a, b, c in faces.tolist():
        ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
        finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return np.concatenate([nodes, midpoints]), np.array(finer, dtype=np.int64)


def refined_icosahedron(refinement: int) -> tuple[Float64, list[NDArray[np.int64]]]:
    """Nodes of the refined icosahedron and the edges of every level up to it.

    Args:
        refinement: number of times that every face is split into four, 0 or more.

    Returns:
        Unit vectors (10·4^refinement + 2, 3), and for each level 0…refinement its undirected edges
        (30·4^level, 2). A level's edges join the first 10·4^level + 2 nodes.

    Raises:
        ValueError: if `refinement` is negative.
    """
    if refinement < 0:
        raise ValueError(f"refinement must be 0 or more, not {refinement}")
    nodes, faces = _icosahedron()
    levels = [_face_edges(faces)]
    for _ in range(refinement):
        nodes, faces = _refine(nodes, faces)
        levels.append(_face_edges(faces))
    return nodes, levels


def mesh_spacing(nodes: Float64) -> float:
    """The largest distance in radians from a node (N, 3) to its nearest other node.

    The reference distance of anemoi-graphs' `CutOffEdges`.
    """
    distance, _ = cKDTree(nodes).query(nodes, k=2)
    return float(2.0 * np.arcsin(distance[:, 1].max() / 2.0))
