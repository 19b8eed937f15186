"""The multi-scale encoder-processor-decoder graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from diffusion_lab.graphs.edges import cutoff_edges, edge_attributes, multi_scale_edges, nearest_edges
from diffusion_lab.graphs.icosahedron import mesh_spacing, refined_icosahedron
from diffusion_lab.graphs.sphere import Float64, chord, to_latitude_longitude, to_unit_vectors
from diffusion_lab.graphs.weights import area_weights, is_limited_area

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


def multi_scale(
    latitudes: ArrayLike,
    longitudes: ArrayLike,
    refinement: int = 3,
    cutoff_factor: float = 0.6,
    num_nearest: int = 3,
) -> HeteroData:
    """Join data nodes to a hidden icosahedral mesh whose edges span every scale.

    - Encoder ("data", "to", "hidden"): every data node within `cutoff_factor` times the mesh spacing of a
      hidden node, and the nearest hidden node for all other data nodes. The mesh spacing is the
      largest distance of a node of the (global) mesh to its nearest other node, as in anemoi-graphs.
    - Processor ("hidden", "to", "hidden"): the edges of the refinement levels 1…`refinement` merged
      (GraphCast, Lam et al. 2023, doi:10.1126/science.adi2336); level 0 alone if `refinement` is 0.
    - Decoder ("hidden", "to", "data"): to every data node from its `num_nearest` nearest hidden nodes.

    Over a limited area the mesh is confined to the hidden nodes within one spacing (of the mesh or of the
    data, whichever is larger) of a data node. The same arguments always give the same graph.

    Args:
        latitudes: (N,) degrees north of the data nodes.
        longitudes: (N,) degrees east of the data nodes.
        refinement: refinements of the icosahedron: 10·4^refinement + 2 hidden nodes on the whole sphere, with
            a mesh spacing of about 73°/2^refinement. A fine regional grid wants more than the default.
        cutoff_factor: encoder radius over mesh spacing.
        num_nearest: decoder edges to each data node.

    Returns:
        The graph, all reals float32, with
        - `graph[node].x` (N, 2), latitude and longitude in radians, and `graph[node].node_attr` (N, 4), the
          sine and cosine of the latitude, then of the longitude, for node in "data", "hidden";
        - `graph["data"].area_weight` (N,), sum 1;
        - `graph[edge].edge_index` (2, E) int64 of (source, target), sorted by target, then source, and
          `graph[edge].edge_attr` (E, 3), the length over the longest of the set and the direction of the
          source as seen from the target (east, north), for the three edge types;
        - `graph.recipe`, the function's name and arguments, for `build_graph`.

    Raises:
        ValueError: if the coordinates are not two finite 1-d arrays of one length, latitudes leave -90…90,
            the nodes span no area, or the area holds fewer than `num_nearest` hidden nodes.
    """
    from torch_geometric.data import HeteroData  # imported here, since it takes longer than all of torch

    data = _positions(latitudes, longitudes)
    data_vectors = to_unit_vectors(*data.T)
    mesh, levels = refined_icosahedron(refinement)
    spacing = mesh_spacing(mesh)
    kept = _within_area(mesh, data_vectors, spacing) if is_limited_area(*data.T) else np.ones(len(mesh), bool)
    hidden_vectors = mesh[kept]
    hidden = np.stack(to_latitude_longitude(hidden_vectors), axis=1)

    graph = HeteroData()
    for name, positions in {"data": data, "hidden": hidden}.items():
        graph[name].x = _float32(np.deg2rad(positions))
        graph[name].node_attr = _float32(_sines_and_cosines(positions))
    graph["data"].area_weight = _float32(area_weights(*data.T))

    ends = {"data": data, "hidden": hidden}
    for source, target, edges in [
        ("data", "hidden", cutoff_edges(data_vectors, hidden_vectors, cutoff_factor * spacing)),
        ("hidden", "hidden", multi_scale_edges(levels[min(1, refinement) :], kept)),
        ("hidden", "data", nearest_edges(hidden_vectors, data_vectors, num_nearest)),
    ]:
        graph[source, "to", target].edge_index = torch.from_numpy(edges)
        graph[source, "to", target].edge_attr = _float32(edge_attributes(ends[source], ends[target], edges))
    graph.recipe = {
        "graph": "multi_scale",
        "refinement": refinement,
        "cutoff_factor": cutoff_factor,
        "num_nearest": num_nearest,
    }
    return graph


GRAPHS = {"multi_scale": multi_scale}


def build_graph(recipe: Mapping[str, Any], latitudes: ArrayLike, longitudes: ArrayLike) -> HeteroData:
    """Build a graph again from its recipe (`graph.recipe`, plain JSON) and the coordinates of its data nodes.

    Args:
        recipe: {"graph": name, argument: value, …}.
        latitudes: (N,) degrees north, float64 as first used.
        longitudes: (N,) degrees east.

    Raises:
        KeyError: if the recipe names no graph that exists.
        TypeError: if it has an argument that the graph does not take.
    """
    arguments = dict(recipe)
    name = arguments.pop("graph", None)
    if name not in GRAPHS:
        raise KeyError(f"unknown graph {name!r} in recipe {dict(recipe)}; there are {sorted(GRAPHS)}")
    return GRAPHS[name](latitudes, longitudes, **arguments)


def _positions(latitudes: ArrayLike, longitudes: ArrayLike) -> Float64:
    latitudes, longitudes = np.asarray(latitudes, np.float64), np.asarray(longitudes, np.float64)
    if latitudes.ndim != 1 or latitudes.shape != longitudes.shape:
        raise ValueError(
            "latitudes and longitudes must be 1-d and of one length, one entry for each node, not of shapes "
            f"{latitudes.shape} and {longitudes.shape}; flatten a grid first"
        )
    if not (np.isfinite(latitudes).all() and np.isfinite(longitudes).all()):
        raise ValueError("latitudes and longitudes must be finite")
    if np.abs(latitudes).max(initial=0) > 90:
        raise ValueError(f"latitudes must lie in -90…90 degrees, found {np.abs(latitudes).max()}")
    return np.stack([latitudes, longitudes], axis=1)


def _within_area(mesh: Float64, data: Float64, spacing: float) -> NDArray[np.bool_]:
    """Which mesh nodes lie within one spacing, of the mesh or of the data, of a data node."""
    margin = max(spacing, mesh_spacing(data))
    distance, _ = cKDTree(data).query(mesh)
    return distance <= chord(margin)


def _sines_and_cosines(positions: Float64) -> Float64:
    latitude, longitude = np.deg2rad(positions).T
    return np.stack([np.sin(latitude), np.cos(latitude), np.sin(longitude), np.cos(longitude)], axis=1)


def _float32(array: Float64) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))
