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

A = math.sqrt(8 / math.pi)
B = 0.044715 * A
ROWS = 256  # of the hidden layer at a time: half a megabyte at 128 channels, the size of a core's own cache


def feed_forward(x: Tensor, residual: Tensor, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """Residual + contract(gelu(expand(x))) for x and residual (sample, node, channel); returns that shape."""
    if torch.compiler.is_compiling():  # compilers write the tanh out too
        hidden = expand(x)
        return residual + contract(hidden * torch.sigmoid(hidden * (A + B * hidden * hidden)))
    if runs_plain(x):
        return residual + contract(functional.gelu(expand(x), approximate="tanh"))
    return _FeedForward.apply(x, residual, expand.weight, expand.bias, contract.weight, contract.bias)


def runs_plain(x: Tensor) -> bool:
    """Whether torch's own operations serve x best: compiled ones, or where not `is_single_on_cpu`."""
    return torch.compiler.is_compiling() or not is_single_on_cpu(x)


def is_single_on_cpu(x: Tensor) -> bool:
    """Whether x is computed with in float32 on the CPU, where the loops of `kernels` are faster than torch.

    They are imported where they are called: that takes a moment, and accelerators do without Numba.
    """
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


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

        rows = x.reshape(-1, x.shape[-1])
        # Biases are added where something else is done anyway: torch.addmm would first copy them out.
        out = (residual + bias_out).view_as(rows)
        active = rows.new_empty(min(ROWS, len(rows)), len(weight))
        training = any(ctx.needs_input_grad)
        hidden = rows.new_empty(len(rows), len(weight)) if training else torch.empty_like(active)
        for i in range(0, len(rows), ROWS):
            some = rows[i : i + ROWS]
            h, a = hidden[i : i + ROWS] if training else hidden[: len(some)], active[: len(some)]
            torch.mm(some, weight.T, out=h)
            kernels.run(kernels.gelu, len(some), h, bias, a, least=kernels.LEAST)
            out[i : i + ROWS].addmm_(a, weight_out.T)
        if training:
            ctx.save_for_backward(rows, hidden, weight, bias, weight_out)
        return out.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        from diffusion_lab.models import kernels

        rows, hidden, weight, bias, weight_out = ctx.saved_tensors
        grads = grad.reshape(-1, grad.shape[-1])
        grad_rows = torch.empty_like(rows)
        grad_weight, grad_weight_out = torch.zeros_like(weight), torch.zeros_like(weight_out)
        grad_bias = torch.zeros_like(bias)
        room = rows.new_empty(3, min(ROWS, len(rows)), len(weight))
        for i in range(0, len(rows), ROWS):
            some, g = slice(i, i + ROWS), grads[i : i + ROWS]
            grad_active, active, grad_hidden = room[:, : len(g)]
            torch.mm(g, weight_out, out=grad_active)
            arguments = (hidden[some], bias, grad_active, active, grad_hidden)
            kernels.run(kernels.gelu_backward, len(g), *arguments, least=kernels.LEAST)
            grad_weight_out.addmm_(g.T, active)
            grad_weight.addmm_(grad_hidden.T, rows[some])
            grad_bias += grad_hidden.sum(0)
            torch.mm(grad_hidden, weight, out=grad_rows[some])
        return grad_rows.view_as(grad), grad, grad_weight, grad_bias, grad_weight_out, grads.sum(0)
