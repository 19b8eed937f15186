"""Matrix products on a CPU, with the faster of the two libraries that come with torch.

Torch multiplies single-precision matrices with MKL, which uses half the register width on AMD processors with
AVX-512; there oneDNN takes half the time and rounds alike. Torch exposes it in single precision only as an
operation for torch.compile; where that is missing, torch's own product is used.
"""

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def _is_amd() -> bool:
    """Whether the processor is AMD's, from /proc/cpuinfo on Linux and its name elsewhere."""
    facts = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (facts.read_text() if facts.exists() else platform.processor())


_serves = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _serves and _is_amd() else None


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The linear map x Wᵀ + bias in float32 on the CPU, as `torch.nn.functional.linear`."""
    if _onednn is None:
        return functional.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias) if torch.is_grad_enabled() else multiply(x, weight.T, bias)


def multiply(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product x @ matrix + bias in float32 on the CPU, without gradients; x (…, row, column)."""
    if _onednn is not None:
        return _onednn(x, matrix.T, bias, "none", [], "")
    return x @ matrix if bias is None else functional.linear(x, matrix.T, bias)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """The matrix Σ a bᵀ over rows of a (row, i) and b (row, j), (i, j); as `multiply`.

    oneDNN copies a transposed first factor, so the narrower one comes first.
    """
    return multiply(a.T, b) if a.shape[1] <= b.shape[1] else multiply(b.T, a).T


class _Linear(torch.autograd.Function):
    """`linear` by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight.T, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        return multiply(grad, weight), outer(rows, x.reshape(-1, x.shape[-1])), rows.sum(0)
