"""Softmax attention: over the neighbours in a graph, and of all nodes over all nodes."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Neighbours(nn.Module):
    """The edges of a graph, grouped by the in-degree of their target.

    Targets of equal degree form a dense block of (node, neighbour), so attention needs neither scatter nor
    padding. A target may have no neighbour, as on a mesh finer than the data; it receives zeros.

    Args:
        edge_index: (2, edge) source and target node numbers.
        num_targets: number of target nodes.

    Attributes:
        blocks: (number of targets, degree) of each block.
        order: (edge,) what sorts edges into blocks.
        source: (edge,) source node of each edge, in that order.
        targets: (target,) nodes in the order of their blocks.
        inverse: (target,) the place of each node in that order.
        first: (target + 1,) where the edges of each target begin, in that order.
    """

    order: Tensor
    source: Tensor
    targets: Tensor
    inverse: Tensor
    first: Tensor

    def __init__(self, edge_index: Tensor, num_targets: int) -> None:
        super().__init__()
        source, target = edge_index
        degree = torch.bincount(target, minlength=num_targets)
        order = torch.argsort(degree[target] * num_targets + target, stable=True)
        targets = torch.argsort(degree, stable=True)
        sizes, counts = torch.unique(degree, return_counts=True)
        self.blocks: list[tuple[int, int]] = list(zip(counts.tolist(), sizes.tolist(), strict=True))
        ends = degree[targets].cumsum(0)
        # The graph comes with the model's recipe; a state_dict holds none of it.
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("source", source[order], persistent=False)
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("inverse", torch.argsort(targets), persistent=False)
        self.register_buffer("first", torch.cat([ends.new_zeros(1), ends]), persistent=False)


def neighbour_attention(query: Tensor, key: Tensor, value: Tensor, edge: Tensor, nb: Neighbours) -> Tensor:
    """Attention of each target node over its sources; edge features are added to keys and values.

    Shi et al. 2021 (arXiv:2009.03509), Eq. 3-4.

    Args:
        query: (sample, target node, head, channel).
        key: (sample, source node, head, channel).
        value: as key.
        edge: (edge, head, channel), in the order of `nb`; shared by all samples.
        nb: the neighbours.

    Returns:
        (sample, target node, head, channel).
    """
    query = query.index_select(1, nb.targets) / math.sqrt(query.shape[-1])
    keys = key.index_select(1, nb.source) + edge
    values = value.index_select(1, nb.source) + edge
    edges_per_block = [nodes * degree for nodes, degree in nb.blocks]
    blocks = zip(
        query.split([nodes for nodes, _ in nb.blocks], dim=1),
        keys.split(edges_per_block, dim=1),
        values.split(edges_per_block, dim=1),
        nb.blocks,
        strict=True,
    )
    outs = [_attend(q, k.unflatten(1, shape), v.unflatten(1, shape)) for q, k, v, shape in blocks]
    return torch.cat(outs, dim=1).index_select(1, nb.inverse)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with query (s, n, h, c) over key and value (s, n, degree, h, c); returns the shape of query."""
    score = (query[:, :, None] * key).sum(-1, keepdim=True)
    return (score.softmax(dim=2) * value).sum(2)


def full_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of all nodes over all nodes, each (sample, node, head, channel); returns that shape."""
    query, key, value = (t.transpose(1, 2) for t in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
