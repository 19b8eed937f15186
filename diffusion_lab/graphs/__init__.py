"""Graphs: nodes, edges and their attributes, as torch_geometric `HeteroData`."""

from diffusion_lab.graphs.multi_scale import GRAPHS, build_graph, multi_scale
from diffusion_lab.graphs.weights import area_weights, is_limited_area

__all__ = ["GRAPHS", "area_weights", "build_graph", "is_limited_area", "multi_scale"]
