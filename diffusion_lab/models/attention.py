"""Attention over graph neighbours: the hot path of the network.

Target nodes are sorted into buckets of equal in-degree. There are two forms of the same sum, held
against a plain loop over nodes in `tests/models/test_attention.py`:

- `dense_attention`: every bucket is a dense (node, neighbour) block, with no scatter and no padding.
  Compilers fuse it, accelerators run it.
- `SparseAttention`: what a CPU without a compiler does best. Dot products along the edges, and weighted sums
  over them, each in one call and on one sample at a time: memory traffic took four fifths of the dense form's
  time, and operations on rows as short as a node's neighbours a third of what was left.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from diffusion_lab.models.feed_forward import runs_plain

LARGEST_EXPONENT = 100.0  # of 2: sums over neighbours stay below the largest float32, 2¹²⁸


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
        self._pattern: SparsePattern | None = None

    def pattern(self, num_sources: int, num_heads: int) -> "SparsePattern":
        """The edges as sparse matrices, on the CPU; made at the first call."""
        if self._pattern is None or self._pattern.size != (num_sources, num_heads):
            self._pattern = SparsePattern.of(self, num_sources, num_heads)
        return self._pattern


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
    if runs_plain(query):
        return dense_attention(query, key, value, edge, nb)
    return SparseAttention.apply(query, key, value, edge, nb.pattern(*key.shape[1:3]))


def dense_attention(query: Tensor, key: Tensor, value: Tensor, edge: Tensor, nb: Neighbours) -> Tensor:
    """As `neighbour_attention`, in torch's own operations."""
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


@dataclass(frozen=True)
class SparsePattern:
    """Edges of one sample as a sparse matrix whose rows are (target, head), in bucket order.

    An entry is one (edge, head); entries lie row after row. Indices are int32 where not said otherwise.

    Attributes:
        size: number of sources, number of heads.
        targets: (target,) target node numbers in bucket order, int64.
        inverse: (target,) where each target lies in bucket order, int64.
        blocks: (rows, entries per row) of each bucket.
        first: (row + 1,) where each row's entries begin.
        row: (entry,) row of each entry.
        column: (entry,) edge·heads + head.
        pairs: (2·edge,) each edge's source, and the edge itself in a table where edges come after sources.
        pairs_first: (edge + 1,) where each pair begins.
        edge_order: (entry,) entries in the order (edge, head), int64.
        edge_row: (entry,) row of each entry, in that order.
        each: (entry + 1,) where bags of one entry begin.
        leaving: (edge,) edges sorted by their source.
        leaving_first: (source + 1,) where the edges of each source begin there.
    """

    size: tuple[int, int]
    targets: Tensor
    inverse: Tensor
    blocks: list[tuple[int, int]]
    first: Tensor
    row: Tensor
    column: Tensor
    pairs: Tensor
    pairs_first: Tensor
    edge_order: Tensor
    edge_row: Tensor
    each: Tensor
    leaving: Tensor
    leaving_first: Tensor

    @classmethod
    def of(cls, nb: Neighbours, num_sources: int, num_heads: int) -> "SparsePattern":
        """The pattern of some neighbours."""
        heads, edges = torch.arange(num_heads), torch.arange(len(nb.source))
        degrees = torch.cat([torch.full((nodes,), degree) for nodes, degree in nb.blocks])
        target = torch.repeat_interleave(torch.arange(len(degrees)), degrees)
        # (edge, head) → entries sorted by (target, head, edge)
        row = (target[:, None] * num_heads + heads).flatten()
        order = torch.argsort(row, stable=True)
        with warnings.catch_warnings():  # torch says it once a process, of the first sparse tensor
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            none = heads[:0]
            torch.sparse_csr_tensor(
                heads.new_zeros(2), none, none.float(), size=(1, 1), check_invariants=False
            )
        return cls(
            size=(num_sources, num_heads),
            targets=nb.targets,
            inverse=nb.inverse,
            blocks=[(nodes * num_heads, degree) for nodes, degree in nb.blocks],
            first=_first(row, len(degrees) * num_heads),
            row=row[order].int(),
            column=order.int(),
            pairs=torch.stack([nb.source, num_sources + edges], dim=1).flatten().int(),
            pairs_first=torch.arange(0, 2 * len(edges) + 1, 2, dtype=torch.int32),
            edge_order=torch.argsort(order),
            edge_row=row.int(),
            each=torch.arange(len(row) + 1, dtype=torch.int32),
            leaving=torch.argsort(nb.source, stable=True).int(),
            leaving_first=_first(nb.source, num_sources),
        )


def _first(rows: Tensor, num_rows: int) -> Tensor:
    """Where the entries of each row begin in the sorted `rows`, and where the last ends; int32."""
    counts = torch.bincount(rows, minlength=num_rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


class SparseAttention(torch.autograd.Function):
    """As `dense_attention`, sample by sample: dot products and weighted sums over the entries of a pattern.

    With K = k + e and V = v + e along the edges, and q̂ = q log₂e / √channel in bucket order,

        p = 2^(q̂·K),   z = Σ p,   o = Σ p V / z.

    With g = ∂o / z and D = g·o the backward pass is made of the same operations: ∂l = p (g·V − D),
    ∂q = Σ ∂l K / √channel, and on the edges ∂K = ∂l q / √channel and ∂V = p g, whose sums over the edges that
    leave a source are ∂k and ∂v, and whose sum is ∂e. Of the size of the edges, only p is kept for it.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, edge: Tensor, pattern: SparsePattern
    ) -> Tensor:
        """Shapes as `dense_attention`."""
        p, (samples, nodes, heads, channels) = pattern, query.shape
        scaled = query.index_select(1, p.targets).mul_(math.log2(math.e) / math.sqrt(channels))
        out, total = torch.empty_like(scaled), query.new_ones(samples, nodes * heads, 1)
        weights, table = [], _Table(key, edge, p)
        for i in range(samples):
            w = _dots(_rows(scaled[i]), table.along_edges(key[i]), p)
            if w.abs().amax() > LARGEST_EXPONENT:
                for x in _blocks(w, p.blocks):
                    x.sub_(x.amax(1, keepdim=True))
            w.exp2_()
            _row_sums(w, p.blocks, out=total[i, :, 0])
            torch.div(_sums(w, table.along_edges(value[i]), p.first, p.column), total[i], out=_rows(out[i]))
            weights.append(w)
        out = out.index_select(1, p.inverse)
        ctx.save_for_backward(query, key, value, edge, out, total, *weights)
        ctx.pattern = pattern
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key, value and edge."""
        query, key, value, edge, out, total, *weights = ctx.saved_tensors
        p: SparsePattern = ctx.pattern
        scale = 1 / math.sqrt(query.shape[-1])
        scaled = query.index_select(1, p.targets).mul_(scale)
        g = grad.index_select(1, p.targets).div_(total.view(*query.shape[:3], 1))
        offset = -(g * out.index_select(1, p.targets)).sum(-1)
        grad_query = torch.empty_like(scaled)
        grad_key, grad_value = query.new_empty(2, *key.shape).unbind(0)
        grad_edge, table = torch.zeros_like(edge), _Table(key, edge, p)
        for i, w in enumerate(weights):
            slope = offset[i].flatten().index_select(0, p.row)
            slope = _dots(_rows(g[i]), table.along_edges(value[i]), p, slope).mul_(w)
            _rows(grad_query[i]).copy_(_sums(slope, table.along_edges(key[i]), p.first, p.column))
            for gradient, weight, rows in ((grad_key, slope, scaled), (grad_value, w, g)):
                turned = weight.index_select(0, p.edge_order)
                of_edges = _sums(turned, _rows(rows[i]), p.each, p.edge_row).view(edge.shape)
                grad_edge += of_edges
                gradient[i] = _sums(None, of_edges.flatten(1), p.leaving_first, p.leaving).view(key.shape[1:])
        return grad_query.index_select(1, p.inverse).mul_(scale), grad_key, grad_value, grad_edge, None


class _Table:
    """Room for what all sources and all edges have, (source + edge, head·channel)."""

    def __init__(self, key: Tensor, edge: Tensor, pattern: SparsePattern) -> None:
        self.sources, self.pattern = key.shape[1], pattern
        self.room = edge.new_empty(self.sources + len(edge), *edge.shape[1:])
        self.room[self.sources :] = edge

    def along_edges(self, of_sources: Tensor) -> Tensor:
        """(source, head, channel) → (edge·head, channel): what the source has plus what the edge has."""
        self.room[: self.sources] = of_sources
        summed = _sums(None, self.room.flatten(1), self.pattern.pairs_first, self.pattern.pairs)
        return summed.view(-1, self.room.shape[-1])


def _rows(x: Tensor) -> Tensor:
    """(node or edge, head, channel) → (node·head or edge·head, channel)."""
    return x.flatten(0, 1)


def _dots(left: Tensor, right: Tensor, pattern: SparsePattern, plus: Tensor | None = None) -> Tensor:
    """left[row]·right[column] for each entry, plus `plus` (entry,)."""
    values = left.new_zeros(len(pattern.column)) if plus is None else plus
    entries = torch.sparse_csr_tensor(
        pattern.first, pattern.column, values, size=(len(left), len(right)), check_invariants=False
    )
    # In place: a new result would copy the indices too.
    beta = 0.0 if plus is None else 1.0
    return torch.sparse.sampled_addmm(entries, left, right.T, beta=beta, out=entries).values()


def _sums(weights: Tensor | None, table: Tensor, first: Tensor, column: Tensor) -> Tensor:
    """Σ weight·table[column] over the entries of each row; no weights are ones."""
    return functional.embedding_bag(
        column, table.detach(), first, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _blocks(entries: Tensor, blocks: list[tuple[int, int]]) -> list[Tensor]:
    """Views (row, entry) of the entries of each bucket that has any."""
    parts = entries.split([rows * degree for rows, degree in blocks])
    return [part.view(shape) for part, shape in zip(parts, blocks, strict=True) if shape[1] > 0]


def _row_sums(entries: Tensor, blocks: list[tuple[int, int]], out: Tensor) -> None:
    """Sums over the entries of each row that has any; as products with ones, which torch does faster."""
    outs = [o for o, shape in zip(out.split([n for n, _ in blocks]), blocks, strict=True) if shape[1] > 0]
    for x, o in zip(_blocks(entries, blocks), outs, strict=True):
        torch.mv(x, x.new_ones(x.shape[1]), out=o)
