"""Attention over graph neighbours: the hot path of the network.

Target nodes are sorted into buckets of equal in-degree, so that every bucket is a dense (node, neighbour)
block: no scatter, no padding, no edge list repeated per sample. On a CPU this was the fastest of the forms
tried (an edge list with index_add, segment reduction, padding to the highest degree), eager and compiled;
the plain form that tests hold it against is in `tests/models/test_attention.py`.
"""

import math

import torch
from torch import Tensor, nn


class Neighbours(nn.Module):
    """Who listens to whom, in bucket order: edges grouped by the in-degree of their target.

    A target may have no neighbour, as hidden nodes of a mesh finer than the data: it receives zeros.

    Args:
        edge_index: (2, edge) source and target node numbers.
        num_targets: number of target nodes.
    """

    def __init__(self, edge_index: Tensor, num_targets: int) -> None:
        super().__init__()
        source, target = edge_index
        degree = torch.bincount(target, minlength=num_targets)
        # Sort edges by (degree of the target, target); targets alike.
        order = torch.argsort(degree[target] * num_targets + target, stable=True)
        targets = torch.argsort(degree, stable=True)
        sizes, counts = torch.unique(degree, return_counts=True)
        self.blocks: list[tuple[int, int]] = list(zip(counts.tolist(), sizes.tolist(), strict=True))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("source", source[order], persistent=False)
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("inverse", torch.argsort(targets), persistent=False)


def neighbour_attention(query: Tensor, key: Tensor, value: Tensor, edge: Tensor, nb: Neighbours) -> Tensor:
    """Softmax attention of each target node over its sources, edge features added to keys and values.

    Args:
        query: (sample, target node, head, channel).
        key: (sample, source node, head, channel).
        value: as key.
        edge: (edge, head, channel), in the order of `nb`; shared by all samples.
        nb: the neighbours.

    Returns:
        (sample, target node, head, channel).
    """
    keys = key.index_select(1, nb.source) + edge
    values = value.index_select(1, nb.source) + edge
    queries = query.index_select(1, nb.targets) / math.sqrt(query.shape[-1])
    edges_per_block = [nodes * degree for nodes, degree in nb.blocks]
    blocks = zip(
        queries.split([nodes for nodes, _ in nb.blocks], dim=1),
        keys.split(edges_per_block, dim=1),
        values.split(edges_per_block, dim=1),
        nb.blocks,
        strict=True,
    )
    out = [_dense_attention(q, k.unflatten(1, shape), v.unflatten(1, shape)) for q, k, v, shape in blocks]
    return torch.cat(out, dim=1).index_select(1, nb.inverse)


def _dense_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with query (s, n, h, c) over key and value (s, n, degree, h, c); returns the shape of query."""
    score = (query[:, :, None] * key).sum(-1, keepdim=True)
    return (score.softmax(dim=2) * value).sum(2)
