"""Linear → GELU → Linear in cache-sized pieces, for a CPU without a compiler.

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


def feed_forward(x: Tensor, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """contract(gelu(expand(x))) for x (sample, node, channel); returns the shape of x."""
    if torch.compiler.is_compiling():  # compilers write the tanh out too
        hidden = expand(x)
        return contract(hidden * torch.sigmoid(hidden * (A + B * hidden * hidden)))
    if runs_plain(x):
        return contract(functional.gelu(expand(x), approximate="tanh"))
    return _FeedForward.apply(x, expand.weight, expand.bias, contract.weight, contract.bias)


def runs_plain(x: Tensor) -> bool:
    """Whether torch's own operations serve x best: compiled, on an accelerator, or in half precision."""
    return torch.compiler.is_compiling() or not is_single_on_cpu(x)


def is_single_on_cpu(x: Tensor) -> bool:
    """Whether x is on the CPU and is not to be computed with in half precision."""
    full = x.dtype in (torch.float32, torch.float64)
    return x.device.type == "cpu" and full and not torch.is_autocast_enabled("cpu")


class _FeedForward(torch.autograd.Function):
    """Keeps the hidden layer before its activation, and only that, for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, weight_out: Tensor, bias_out: Tensor
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = torch.empty_like(rows)
        training = any(ctx.needs_input_grad)
        hidden = rows.new_empty(len(rows) if training else min(ROWS, len(rows)), len(weight))
        for i in range(0, len(rows), ROWS):
            some = slice(i, i + ROWS)
            part = hidden[some] if training else hidden[: len(rows[some])]
            torch.addmm(bias, rows[some], weight.T, out=part)
            torch.addmm(bias_out, _gate(part).mul_(part), weight_out.T, out=out[some])
        if training:
            ctx.save_for_backward(rows, hidden, weight, weight_out)
        return out.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        rows, hidden, weight, weight_out = ctx.saved_tensors
        grads = grad.reshape(-1, grad.shape[-1])
        grad_rows = torch.empty_like(rows)
        grad_weight, grad_weight_out = torch.zeros_like(weight), torch.zeros_like(weight_out)
        grad_bias = weight.new_zeros(len(weight))
        for i in range(0, len(rows), ROWS):
            some = slice(i, i + ROWS)
            h, g = hidden[some], grads[some]
            gate = _gate(h)
            active = gate * h
            grad_weight_out.addmm_(g.T, active)
            # d(h σ(p))/dh = σ + h σ (1 − σ) dp/dh, where dp/dh = a + 3b h².
            slope = torch.addcmul(h.new_tensor(A), h, h, value=3 * B).mul_(active)
            slope.addcmul_(slope, gate, value=-1).add_(gate)
            grad_hidden = torch.mm(g, weight_out).mul_(slope)
            grad_weight.addmm_(grad_hidden.T, rows[some])
            grad_bias += grad_hidden.sum(0)
            torch.mm(grad_hidden, weight, out=grad_rows[some])
        return grad_rows.view_as(grad), grad_weight, grad_bias, grad_weight_out, grads.sum(0)


def _gate(h: Tensor) -> Tensor:
    """σ(h (a + b h²))."""
    return torch.addcmul(h.new_tensor(A), h, h, value=B).mul_(h).sigmoid_()
