"""Attention by loops that store little: on a CPU the plain forms spend most of their time on memory traffic.

Over neighbours, one loop over the edges of each target saves four fifths of that traffic. Full attention
computes and uses the weights of two queries at a time within the first-level cache.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffusion_lab.acceleration.kernels import attention as kernels
from diffusion_lab.acceleration.kernels import loops
from diffusion_lab.models.attention import Neighbours


def neighbour_attention(
    query: Tensor, key: Tensor, value: Tensor, edge: Tensor, nb: Neighbours, heads: int
) -> Tensor:
    """As `models.attention.neighbour_attention`, with heads and channels in one dimension of each tensor."""
    return _Neighbours.apply(heads, query, key, value, edge, nb.first, nb.source, nb.targets)


class _Neighbours(torch.autograd.Function):
    """Saves the weights for the backward pass: they are no larger than the edges."""

    @staticmethod
    def forward(ctx: Any, heads: int, *tensors: Tensor) -> Tensor:
        query, _, _, edge, *_ = tensors
        out, weights = torch.empty_like(query), query.new_empty(len(query), len(edge), heads)
        arguments = (*tensors, out, weights)
        loops.run(kernels.neighbour_attention, query.shape[:2].numel(), *arguments)
        ctx.save_for_backward(*arguments)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        grads = [torch.zeros_like(x) for x in saved[:4]]
        heads = saved[-1].shape[2]
        loops.run(kernels.neighbour_attention_backward, heads, *saved, grad.contiguous(), *grads)
        return None, *grads, None, None, None


def full_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As `models.attention.full_attention`, of contiguous tensors (sample, node, head, channel)."""
    return _Full.apply(query, key, value)


class _Full(torch.autograd.Function):
    """Saves one number for each query and head, from which the backward pass recomputes the weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        samples, nodes, heads, _ = query.shape
        out, total = torch.empty_like(query), query.new_empty(samples, heads, nodes)
        loops.run(kernels.full_attention, samples * heads, query, key, value, out, total)
        ctx.save_for_backward(query, key, value, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in saved[:3]]
        pairs = grad.shape[0] * grad.shape[2]
        loops.run(kernels.full_attention_backward, pairs, *saved, grad.contiguous(), *grads)
        return tuple(grads)
