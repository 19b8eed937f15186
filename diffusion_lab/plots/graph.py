"""A graph on the globe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from numpy.typing import NDArray

from diffusion_lab.graphs.sphere import great_circle_distance, to_unit_vectors
from diffusion_lab.plots.style import BLUE, ORANGE, SKY, VERMILION

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

_SCALES = (SKY, BLUE, VERMILION)  # short, medium and long edges
_ARC = np.linspace(0, 1, 9)


def graph_on_globe(
    ax: Axes,
    graph: HeteroData,
    edge_type: tuple[str, str, str] = ("hidden", "to", "hidden"),
    *,
    latitude: float = 35.0,
    longitude: float = 10.0,
) -> None:
    """Draw the nodes of a graph and one set of its edges on a globe in orthographic projection.

    Edges are great-circle arcs. Those between nodes of one type are coloured by scale, one for each doubling
    of the shortest length: the refinement levels of a multi-scale mesh.

    Args:
        graph: with positions `x` in radians, see `graphs.multi_scale`.
        edge_type: which edges.
        latitude: degrees north of the centre of the plot.
        longitude: degrees east of it.

    Raises:
        KeyError: if the graph has no such edges.
    """
    if edge_type not in graph.edge_types:
        raise KeyError(f"the graph has no edges {edge_type}; it has {graph.edge_types}")
    turn = _view(latitude, longitude)
    nodes = {
        name: to_unit_vectors(*np.rad2deg(graph[name].x.double().numpy()).T) @ turn.T
        for name in graph.node_types
    }
    ax.add_patch(Circle((0, 0), 1, facecolor="0.97", edgecolor="0.6", linewidth=0.8))

    source, target = graph[edge_type].edge_index.numpy()
    ends = nodes[edge_type[0]][source], nodes[edge_type[2]][target]
    scale = np.zeros(len(source), np.int64)
    if edge_type[0] == edge_type[2]:
        length = great_circle_distance(*ends)
        scale = np.round(np.log2(length / length.min())).astype(np.int64)
    arcs = _great_circles(*ends)
    seen = (arcs[..., 2] > 0).all(axis=1)
    for number in range(scale.max() + 1):
        chosen = list(arcs[seen & (scale == number), :, :2])
        colour, width = _SCALES[min(number, 2)], 0.5 + 0.6 * min(number, 2)
        ax.add_collection(LineCollection(chosen, colors=colour, linewidths=width, zorder=2 + number))

    for name, colour, size in (("data", ORANGE, 3), ("hidden", "0.1", 9)):
        x, y, _ = nodes[name][nodes[name][:, 2] > 0].T
        ax.scatter(x, y, s=size, color=colour, linewidths=0, zorder=9, label=f"{name} nodes")
    reach = 1.03 * max(np.abs(node[node[:, 2] > 0, :2]).max() for node in nodes.values())
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.set_axis_off()
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(-0.05, 1.05), markerscale=2)


def _view(latitude: float, longitude: float) -> NDArray[np.float64]:
    """Rotation of a place to the centre: x to the right, y up, z towards the viewer."""
    # To the east and north of the place, and up from it.
    return to_unit_vectors([0, latitude + 90, latitude], [longitude + 90, longitude, longitude])


def _great_circles(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (E, 9, 3) on the shorter arcs between unit vectors (E, 3)."""
    points = a[:, None] * (1 - _ARC[:, None]) + b[:, None] * _ARC[:, None]
    return points / np.linalg.norm(points, axis=-1, keepdims=True)
