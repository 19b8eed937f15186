"""Attention over graph neighbours: the hot path of the network.

Target nodes are sorted into buckets of equal in-degree. There are two forms of the same sum, held
against a plain loop over nodes in `tests/models/test_attention.py`:

- `dense_attention`: every bucket is a dense (node, neighbour) block, with no scatter and no padding.
  Accelerators run it.
- `_loop`: on a CPU, one loop over the edges of each target (`kernels.neighbour_attention`), which keeps only
  the weights of the size of the edges: memory traffic took four fifths of the dense form's time.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lab.models.products import is_single_on_cpu


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
        ends = degree[targets].cumsum(0)  # of each target's edges, in that order
        self.register_buffer("first", torch.cat([ends.new_zeros(1), ends]), persistent=False)


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
    if not is_single_on_cpu(query):
        return dense_attention(query, key, value, edge, nb)
    inputs = [x.flatten(-2).contiguous() for x in (query, key, value, edge)]
    out, _ = _loop(*inputs, nb.first, nb.source, nb.targets, query.shape[2])
    return out.view(query.shape)


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


# Compilers see these as operations like torch's own, and do not look inside.
@torch.library.custom_op("diffusion_lab::neighbour_attention", mutates_args=())
def _loop(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edge: Tensor,
    first: Tensor,
    source: Tensor,
    targets: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor]:
    """Call `kernels.neighbour_attention`, in whose shapes all is; returns the result and the weights."""
    from diffusion_lab.models import kernels

    out, weights = torch.empty_like(query), query.new_empty(len(query), len(edge), heads)
    arguments = (query, key, value, edge, first, source, targets, out, weights)
    kernels.run(kernels.neighbour_attention, query.shape[:2].numel(), *arguments)
    return out, weights


@_loop.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, edge: Tensor, *graph: Any) -> tuple[Tensor, Tensor]:
    *_, heads = graph
    return torch.empty_like(query), query.new_empty(query.shape[0], edge.shape[0], heads)


@torch.library.custom_op("diffusion_lab::neighbour_attention_backward", mutates_args=())
def _loop_backward(saved: list[Tensor], grad: Tensor) -> list[Tensor]:
    """Gradients of the first four of `saved`: what `_loop` took, its result and its weights."""
    from diffusion_lab.models import kernels

    grads = [torch.zeros_like(x) for x in saved[:4]]
    kernels.run(kernels.neighbour_attention_backward, saved[-1].shape[2], *saved, grad.contiguous(), *grads)
    return grads


@_loop_backward.register_fake
def _(saved: list[Tensor], grad: Tensor) -> list[Tensor]:
    return [torch.empty_like(x) for x in saved[:4]]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:-1], *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_loop_backward(list(ctx.saved_tensors), grad), None, None, None, None


_loop.register_autograd(_gradients, setup_context=_keep)
