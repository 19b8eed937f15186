"""Softmax attention of all nodes over all nodes.

Heads of 8 channels leave little arithmetic beside the exponentials, of which there are node² a head. On a CPU
the weights of one query are made, used and forgotten in the nearest cache (`kernels.self_attention`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffusion_lab.models.products import is_single_on_cpu


def self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with query over key and value, each (sample, node, head, channel); returns that shape."""
    if is_single_on_cpu(query):
        return _loop(query.contiguous(), key.contiguous(), value.contiguous())[0]
    turned = (t.transpose(1, 2) for t in (query, key, value))
    return functional.scaled_dot_product_attention(*turned).transpose(1, 2)


# Compilers see these as operations like torch's own, and do not look inside.
@torch.library.custom_op("diffusion_lab::self_attention", mutates_args=())
def _loop(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Call `kernels.self_attention`; returns the result and what it needs to make the weights again."""
    from diffusion_lab.models import kernels

    samples, nodes, heads, _ = query.shape
    out, total = torch.empty_like(query), query.new_empty(samples, heads, nodes)
    kernels.run(kernels.self_attention, samples * heads, query, key, value, out, total)
    return out, total


@_loop.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[0], query.shape[2], query.shape[1])


@torch.library.custom_op("diffusion_lab::self_attention_backward", mutates_args=())
def _loop_backward(saved: list[Tensor], grad: Tensor) -> list[Tensor]:
    """Gradients of the first three of `saved`: what `_loop` took, and what it returned."""
    from diffusion_lab.models import kernels

    grads = [torch.empty_like(x) for x in saved[:3]]
    pairs = grad.shape[0] * grad.shape[2]
    kernels.run(kernels.self_attention_backward, pairs, *saved, grad.contiguous(), *grads)
    return grads


@_loop_backward.register_fake
def _(saved: list[Tensor], grad: Tensor) -> list[Tensor]:
    return [torch.empty_like(x) for x in saved[:3]]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    return tuple(_loop_backward(list(ctx.saved_tensors), grad))


_loop.register_autograd(_gradients, setup_context=_keep)
