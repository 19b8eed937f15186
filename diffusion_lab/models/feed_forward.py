"""Linear → GELU → Linear, on a CPU in cache-sized pieces.

The hidden layer is four times as wide as the nodes: written out whole, it costs more in memory traffic and
page faults than its matrix products do in arithmetic. Torch's tanh costs as much again; the same function is

    gelu(h) = h/2 (1 + tanh(p/2)) = h σ(p),  p = h (a + b h²),  a = √(8/π),  b = 0.044715 a

(Hendrycks & Gimpel 2016, Sec. 2), and σ takes a third of the time.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from diffusion_lab.models.products import is_single_on_cpu, linear, multiply

A = math.sqrt(8 / math.pi)
B = 0.044715 * A
ROWS = 256  # of the hidden layer at a time: half a megabyte at 128 channels, the size of a core's own cache


def feed_forward(x: Tensor, residual: Tensor, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """Residual + contract(gelu(expand(x))) for x and residual (sample, node, channel); returns that shape."""
    if torch.compiler.is_compiling():  # compilers write the tanh out too
        hidden = linear(x, expand.weight, expand.bias)
        active = hidden * torch.sigmoid(hidden * (A + B * hidden * hidden))
        return linear(active, contract.weight, contract.bias, residual)
    if runs_plain(x):
        return residual + contract(functional.gelu(expand(x), approximate="tanh"))
    return _FeedForward.apply(x, residual, expand.weight, expand.bias, contract.weight, contract.bias)


def runs_plain(x: Tensor) -> bool:
    """Whether torch's own operations serve x best: compiled ones, or where not `is_single_on_cpu`."""
    return torch.compiler.is_compiling() or not is_single_on_cpu(x)


class _FeedForward(torch.autograd.Function):
    """Keeps the hidden layer before its activation, and only that, for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        weight: Tensor,
        bias: Tensor,
        weight_out: Tensor,
        bias_out: Tensor,
    ) -> Tensor:
        from diffusion_lab.models import kernels

        rows, added = x.reshape(-1, x.shape[-1]), residual.reshape(-1, residual.shape[-1])
        out, pieces = torch.empty_like(added), []
        training = any(ctx.needs_input_grad)
        for i in range(0, len(rows), ROWS):
            hidden = multiply(rows[i : i + ROWS], weight.T)
            active = torch.empty_like(hidden)
            kernels.run(kernels.gelu, len(hidden), hidden, bias, active, least=kernels.LEAST)
            out[i : i + ROWS] = multiply(active, weight_out.T, bias_out, added[i : i + ROWS])
            if training:
                pieces.append(hidden)
        if training:
            ctx.save_for_backward(rows, weight, bias, weight_out, *pieces)
        return out.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        from diffusion_lab.models import kernels

        rows, weight, bias, weight_out, *pieces = ctx.saved_tensors
        grads = grad.reshape(-1, grad.shape[-1])
        grad_rows = torch.empty_like(rows)
        grad_weight, grad_weight_out = torch.zeros_like(weight), torch.zeros_like(weight_out)
        grad_bias = torch.zeros_like(bias)
        for i, hidden in zip(range(0, len(rows), ROWS), pieces, strict=True):
            some, g = rows[i : i + ROWS], grads[i : i + ROWS]
            grad_active = multiply(g, weight_out)
            active, grad_hidden = torch.empty_like(hidden), torch.empty_like(hidden)
            arguments = (hidden, bias, grad_active, active, grad_hidden)
            kernels.run(kernels.gelu_backward, len(g), *arguments, least=kernels.LEAST)
            grad_weight_out += multiply(g.T, active)
            grad_weight += multiply(grad_hidden.T, some)
            grad_bias += grad_hidden.sum(0)
            grad_rows[i : i + ROWS] = multiply(grad_hidden, weight)
        return grad_rows.view_as(grad), grad, grad_weight, grad_bias, grad_weight_out, grads.sum(0)
