"""Softmax attention of all nodes over all nodes.

Heads of 8 channels leave little arithmetic beside the exponentials, of which there are node² a head. On a CPU
the weights of one query are made, used and forgotten in the nearest cache (`kernels.everyone`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from diffusion_lab.models.feed_forward import runs_plain


def self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with query over key and value, each (sample, node, head, channel); returns that shape."""
    if runs_plain(query):
        turned = (t.transpose(1, 2) for t in (query, key, value))
        return functional.scaled_dot_product_attention(*turned).transpose(1, 2)
    return _Loop.apply(query.contiguous(), key.contiguous(), value.contiguous())


class _Loop(torch.autograd.Function):
    """In float32 on the CPU; keeps the sums of the weights, which are made again on the way back."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        from diffusion_lab.models import kernels

        samples, nodes, heads, _ = query.shape
        out, total = torch.empty_like(query), query.new_empty(samples, heads, nodes)
        kernels.run(kernels.everyone, samples * heads, query, key, value, out, total)
        ctx.save_for_backward(query, key, value, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        from diffusion_lab.models import kernels

        saved = ctx.saved_tensors
        grads = tuple(torch.empty_like(x) for x in saved[:3])
        pairs = grad.shape[0] * grad.shape[2]
        kernels.run(kernels.everyone_backward, pairs, *saved, grad.contiguous(), *grads)
        return grads
