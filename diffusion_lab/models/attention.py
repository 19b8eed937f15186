"""Attention over graph neighbours: the hot path of the network.

Target nodes are sorted into buckets of equal in-degree. There are two forms of the same sum, held
against a plain loop over nodes in `tests/models/test_attention.py`:

- `dense_attention`: every bucket is a dense (node, neighbour) block, with no scatter and no padding.
  Compilers fuse it, accelerators run it.
- `SparseAttention`: what a CPU without a compiler does best. Dot products along the edges, and weighted sums
  over them, each in one call and without a temporary of the size (edge, channel), which is what costs: memory
  traffic took four fifths of the dense form's time.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffusion_lab.models.feed_forward import runs_plain


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
    query = query.index_select(1, nb.targets) / math.sqrt(query.shape[-1])
    if runs_plain(query):
        out = dense_attention(query, key, value, edge, nb)
    else:
        out = SparseAttention.apply(query, key, value, edge, nb.pattern(*key.shape[1:3]))
    return out.index_select(1, nb.inverse)


def dense_attention(query: Tensor, key: Tensor, value: Tensor, edge: Tensor, nb: Neighbours) -> Tensor:
    """As `neighbour_attention`, of scaled queries in bucket order; so is the result."""
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
    return torch.cat(
        [_attend(q, k.unflatten(1, shape), v.unflatten(1, shape)) for q, k, v, shape in blocks], dim=1
    )


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with query (s, n, h, c) over key and value (s, n, degree, h, c); returns the shape of query."""
    score = (query[:, :, None] * key).sum(-1, keepdim=True)
    return (score.softmax(dim=2) * value).sum(2)


@dataclass(frozen=True)
class SparsePattern:
    """Edges of one sample as sparse matrices whose rows are (target, head), in bucket order.

    An entry is one (edge, head); entries lie row after row. In the transposed matrix the rows are (source,
    head). All indices are int32.

    Attributes:
        size: number of sources, number of heads.
        blocks: (rows, entries per row) of each bucket.
        first: (row + 1,) where each row's entries begin.
        source: (entry,) source·heads + head.
        edge: (entry,) edge·heads + head.
        transposed_first: (source·heads + 1,) where the entries of each (source, head) begin.
        transposed_order: (entry,) entries in the order of the transposed matrix, int64.
        transposed_row: (entry,) row of each entry, in that order.
        edge_order: (entry,) entries in the order (edge, head), int64.
        edge_row: (entry,) row of each entry, in that order.
    """

    size: tuple[int, int]
    blocks: list[tuple[int, int]]
    first: Tensor
    source: Tensor
    edge: Tensor
    transposed_first: Tensor
    transposed_order: Tensor
    transposed_row: Tensor
    edge_order: Tensor
    edge_row: Tensor

    @classmethod
    def of(cls, nb: Neighbours, num_sources: int, num_heads: int) -> "SparsePattern":
        """The pattern of some neighbours."""
        heads = torch.arange(num_heads)
        degrees = torch.cat([torch.full((nodes,), degree) for nodes, degree in nb.blocks])
        target = torch.repeat_interleave(torch.arange(len(degrees)), degrees)
        # (edge, head) → entries sorted by (target, head, edge)
        row = (target[:, None] * num_heads + heads).flatten()
        order = torch.argsort(row, stable=True)
        row = row[order]
        source = (nb.source[:, None] * num_heads + heads).flatten()[order]
        transposed_order = torch.argsort(source, stable=True)
        edge_order = torch.argsort(order)
        with warnings.catch_warnings():  # torch says it once a process, of the first sparse tensor
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            none = heads[:0]
            torch.sparse_csr_tensor(
                heads.new_zeros(2), none, none.float(), size=(1, 1), check_invariants=False
            )
        return cls(
            size=(num_sources, num_heads),
            blocks=[(nodes * num_heads, degree) for nodes, degree in nb.blocks],
            first=_first(row, len(degrees) * num_heads),
            source=source.int(),
            edge=order.int(),
            transposed_first=_first(source, num_sources * num_heads),
            transposed_order=transposed_order,
            transposed_row=row[transposed_order].int(),
            edge_order=edge_order,
            edge_row=row[edge_order].int(),
        )


def _first(rows: Tensor, num_rows: int) -> Tensor:
    """Where the entries of each row begin in the sorted `rows`, and where the last ends; int32."""
    counts = torch.bincount(rows, minlength=num_rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


class SparseAttention(torch.autograd.Function):
    """As `dense_attention`, sample by sample: dot products and weighted sums over the entries of a pattern.

    With logits l = q·(k + e), weights p = softmax(l) and o = Σ p (v + e), the backward pass is made of the
    same two operations: ∂p = ∂o·(v + e), ∂l = p (∂p − Σ p ∂p), ∂q = Σ ∂l (k + e), over the transposed pattern
    ∂k = Σ ∂l q and ∂v = Σ p ∂o, and ∂e = ∂l q + p ∂o. Only the weights are kept for it.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, edge: Tensor, pattern: SparsePattern
    ) -> Tensor:
        """Shapes as `dense_attention`."""
        out, weights = torch.empty_like(query, memory_format=torch.contiguous_format), []
        table = _rows(edge)
        for i, (q, k, v) in enumerate(zip(query, key, value, strict=True)):
            logits = _dots(_rows(q), _rows(k), pattern.first, pattern.source)
            logits = _dots(_rows(q), table, pattern.first, pattern.edge, logits)
            weights.append(_softmax_(logits, pattern.blocks))
            summed = _sums(weights[i], _rows(v), pattern.first, pattern.source)
            torch.add(summed, _sums(weights[i], table, pattern.first, pattern.edge), out=_rows(out[i]))
        ctx.save_for_backward(query, key, value, edge, *weights)
        ctx.pattern = pattern
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key, value and edge."""
        query, key, value, edge, *weights = ctx.saved_tensors
        p: SparsePattern = ctx.pattern
        contiguous = torch.contiguous_format
        grad_query, grad_key = (torch.empty_like(t, memory_format=contiguous) for t in (query, key))
        grad_value = torch.empty_like(value, memory_format=contiguous)
        grad_edge, table = torch.zeros_like(_rows(edge)), _rows(edge)
        each = torch.arange(len(table) + 1, dtype=torch.int32)
        for i, w in enumerate(weights):
            q, k, v, o = (_rows(t[i]) for t in (query, key, value, grad))
            grad_w = _dots(o, table, p.first, p.edge, _dots(o, v, p.first, p.source))
            grad_l = _softmax_backward_(grad_w, w, p.blocks)
            torch.add(
                _sums(grad_l, k, p.first, p.source),
                _sums(grad_l, table, p.first, p.edge),
                out=_rows(grad_query[i]),
            )
            for gradient, weight, rows in ((grad_key, grad_l, q), (grad_value, w, o)):
                turned = weight.index_select(0, p.transposed_order)
                _rows(gradient[i]).copy_(_sums(turned, rows, p.transposed_first, p.transposed_row))
                grad_edge += _sums(weight.index_select(0, p.edge_order), rows, each, p.edge_row)
        return grad_query, grad_key, grad_value, grad_edge.view_as(edge), None


def _rows(x: Tensor) -> Tensor:
    """(node or edge, head, channel) → (node·head or edge·head, channel)."""
    return x.flatten(0, 1)


def _dots(left: Tensor, right: Tensor, first: Tensor, column: Tensor, plus: Tensor | None = None) -> Tensor:
    """left[row]·right[column] for each entry, plus `plus` (entry,)."""
    values = left.new_zeros(len(column)) if plus is None else plus
    entries = torch.sparse_csr_tensor(
        first, column, values, size=(len(left), len(right)), check_invariants=False
    )
    # In place: a new result would copy the indices too.
    beta = 0.0 if plus is None else 1.0
    return torch.sparse.sampled_addmm(entries, left, right.T, beta=beta, out=entries).values()


def _sums(weights: Tensor, table: Tensor, first: Tensor, column: Tensor) -> Tensor:
    """Σ weight·table[column] over the entries of each row."""
    return functional.embedding_bag(
        column, table, first, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _blocks(entries: Tensor, blocks: list[tuple[int, int]]) -> list[Tensor]:
    """Views (row, entry) of the entries of each bucket that has any."""
    parts = entries.split([rows * degree for rows, degree in blocks])
    return [part.view(shape) for part, shape in zip(parts, blocks, strict=True) if shape[1] > 0]


def _softmax_(logits: Tensor, blocks: list[tuple[int, int]]) -> Tensor:
    """Softmax over the entries of each row, in place: on rows this short faster than torch's own."""
    for x in _blocks(logits, blocks):
        x.sub_(x.amax(1, keepdim=True)).exp_()
        x.div_(x.sum(1, keepdim=True))
    return logits


def _softmax_backward_(grad: Tensor, weights: Tensor, blocks: list[tuple[int, int]]) -> Tensor:
    """The gradient of the logits, p (∂p − Σ p ∂p), in place of ∂p."""
    for g, p in zip(_blocks(grad, blocks), _blocks(weights, blocks), strict=True):
        g.sub_((g * p).sum(1, keepdim=True)).mul_(p)
    return grad
