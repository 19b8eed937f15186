"""Layer norm → linear → GELU → linear with a residual connection, in pieces that fit the cache.

The hidden layer is several times as wide as the input: stored whole, its memory traffic and page faults
cost more than its matrix products, and torch's tanh as much again. The same function is

    gelu(h) = h/2 (1 + tanh(p/2)) = h σ(p),  p = h (a + b h²),  a = √(8/π),  b = 0.044715 a

(Hendrycks & Gimpel 2016, Sec. 2), where σ takes a third of the time.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from diffusion_lab.acceleration.kernels import loops
from diffusion_lab.acceleration.kernels import rows as kernels
from diffusion_lab.acceleration.norms import layer_norm, layer_norm_backward
from diffusion_lab.acceleration.products import multiply, outer

ROWS = 256  # of the hidden layer at a time: half a megabyte at 128 channels, the second-level cache of a core


def feed_forward(x: Tensor, gain: Tensor, shift: Tensor, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """The sum x + contract(gelu(expand(LN(x)·gain + shift))).

    Args:
        x: (sample, node, channel).
        gain: (sample, channel).
        shift: as gain.
        expand: to the hidden layer.
        contract: from the hidden layer.

    Raises:
        RuntimeError: gain and x differ in the number of samples.
    """
    if len(gain) != len(x):
        raise RuntimeError(f"conditions of {len(gain)} samples for {len(x)} samples")
    weights = expand.weight, expand.bias, contract.weight, contract.bias
    return _FeedForward.apply(x.contiguous(), gain, shift, *weights)


class _FeedForward(torch.autograd.Function):
    """Saves only the hidden layer before its activation for the backward pass."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        x, gain, shift, weight, bias, weight_out, bias_out = tensors
        training, hidden_layer = any(ctx.needs_input_grad), []
        out = torch.empty_like(x)
        for sample, some in _pieces(x):
            normed, _ = layer_norm(x[sample, some], gain[sample], shift[sample])
            hidden = multiply(normed[0], weight.T)
            active = torch.empty_like(hidden)
            loops.run(kernels.gelu, len(hidden), hidden, bias, active, least=kernels.LEAST)
            change = multiply(active, weight_out.T, bias_out)
            torch.add(x[sample, some][0], change, out=out[sample, some][0])
            if training:
                hidden_layer.append(hidden)
        if training:
            ctx.save_for_backward(x, gain, shift, weight, bias, weight_out, *hidden_layer)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, gain, shift, weight, bias, weight_out, *hidden_layer = ctx.saved_tensors
        grad_x, grad = torch.empty_like(x), grad.contiguous()
        grad_gain, grad_shift = torch.zeros_like(gain), torch.zeros_like(shift)
        grad_weight_transposed, grad_weight_out = x.new_zeros(weight.T.shape), torch.zeros_like(weight_out)
        grad_bias = torch.zeros_like(bias)
        for (sample, some), hidden in zip(_pieces(x), hidden_layer, strict=True):
            g = grad[sample, some]
            grad_active = multiply(g[0], weight_out)
            active, grad_hidden = torch.empty_like(hidden), torch.empty_like(hidden)
            arguments = (hidden, bias, grad_active, active, grad_hidden)
            loops.run(kernels.gelu_backward, len(hidden), *arguments, least=kernels.LEAST)
            normed, statistics = layer_norm(x[sample, some], gain[sample], shift[sample])
            grad_weight_out += outer(g[0], active)
            grad_weight_transposed += outer(normed[0], grad_hidden)
            grad_bias += grad_hidden.sum(0)
            grad_normed = multiply(grad_hidden, weight)[None]
            of_norm = layer_norm_backward(x[sample, some], gain[sample], statistics, grad_normed)
            grad_x[sample, some] = g + of_norm[0]
            grad_gain[sample] += of_norm[1]
            grad_shift[sample] += of_norm[2]
        of_expand = grad_weight_transposed.T, grad_bias
        return grad_x, grad_gain, grad_shift, *of_expand, grad_weight_out, grad.sum((0, 1))


def _pieces(x: Tensor) -> list[tuple[slice, slice]]:
    """One sample and some of its nodes at a time."""
    samples, nodes, _ = x.shape
    return [(slice(s, s + 1), slice(i, i + ROWS)) for s, i in product(range(samples), range(0, nodes, ROWS))]
