"""Attention by loops that keep little: on a CPU the plain forms spend most of their time on memory traffic.

Over neighbours, one loop over the edges of each target replaces four fifths of that traffic. In full
attention the weights of two queries at a time are made, used and forgotten in the nearest cache.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffusion_lab.acceleration import kernels
from diffusion_lab.models.attention import Neighbours


def neighbour_attention(
    query: Tensor, key: Tensor, value: Tensor, edge: Tensor, nb: Neighbours, heads: int
) -> Tensor:
    """As `models.attention.neighbour_attention`, with heads and channels in one dimension.

    Args:
        query: (sample, target node, head·channel).
        key: (sample, source node, head·channel).
        value: as key.
        edge: (edge, head·channel), in the order of `nb`.
        nb: the neighbours.
        heads: number of heads.

    Returns:
        The shape of query.
    """
    return _Neighbours.apply(query, key, value, edge, nb.first, nb.source, nb.targets, heads)


class _Neighbours(torch.autograd.Function):
    """Keeps the weights, which are of the size of the edges."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        edge: Tensor,
        first: Tensor,
        source: Tensor,
        targets: Tensor,
        heads: int,
    ) -> Tensor:
        out, weights = torch.empty_like(query), query.new_empty(len(query), len(edge), heads)
        arguments = (query, key, value, edge, first, source, targets, out, weights)
        kernels.run(kernels.neighbour_attention, query.shape[:2].numel(), *arguments)
        ctx.save_for_backward(*arguments)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        grads = [torch.zeros_like(x) for x in saved[:4]]
        heads = saved[-1].shape[2]
        kernels.run(kernels.neighbour_attention_backward, heads, *saved, grad.contiguous(), *grads)
        return *grads, None, None, None, None


def full_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As `models.attention.full_attention`, of contiguous tensors (sample, node, head, channel)."""
    return _Full.apply(query, key, value)


class _Full(torch.autograd.Function):
    """Keeps one number for each query and head, from which the weights are made again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        samples, nodes, heads, _ = query.shape
        out, total = torch.empty_like(query), query.new_empty(samples, heads, nodes)
        kernels.run(kernels.full_attention, samples * heads, query, key, value, out, total)
        ctx.save_for_backward(query, key, value, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in saved[:3]]
        pairs = grad.shape[0] * grad.shape[2]
        kernels.run(kernels.full_attention_backward, pairs, *saved, grad.contiguous(), *grads)
        return tuple(grads)
