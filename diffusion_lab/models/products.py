"""Matrix products, on a CPU by the faster of the two libraries that come with torch.

Torch multiplies single-precision matrices with MKL, which is the faster one on Intel's processors. On AMD's
with AVX-512 it uses half the width of the registers, and oneDNN takes half the time and rounds alike. Torch
shows that in single precision only as the operation that torch.compile writes for CPUs; where it is missing,
torch's own serves.
"""

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def _is_amd() -> bool:
    """Whether the processor says so: on Linux in a file, on Windows by its name."""
    facts = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (facts.read_text() if facts.exists() else platform.processor())


_serves = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _serves and _is_amd() else None


def keep_freed_memory() -> None:
    """Have glibc keep up to 64 MB of freed memory instead of giving it back to the system.

    The pages of an array that was given back cost more than the arithmetic on it: a sixth of a network call.
    How much is kept follows the largest array freed yet, up to 32 MB (mallopt(3), "dynamic mmap threshold"):
    here it is one of 31 MB, of which no page is touched. Other allocators take no notice.
    """
    torch.empty(31 * 2**18, device="cpu")


def linear(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None) -> Tensor:
    """The linear map x Wᵀ + bias, added to `residual` if there is one.

    Args:
        x: (…, input channel).
        weight: (output channel, input channel).
        bias: (output channel,).
        residual: (…, output channel).
    """
    if _onednn is None or not is_single_on_cpu(x):
        out = functional.linear(x, weight, bias)
        return out if residual is None else residual + out
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias, residual)
    return multiply(x, weight.T, bias, residual)


def is_single_on_cpu(x: Tensor) -> bool:
    """Whether x is computed with in float32 on the CPU, where the loops of `kernels` are faster than torch.

    They are imported where they are called: that takes a moment, and accelerators do without Numba.
    """
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def runs_plain(x: Tensor) -> bool:
    """Whether torch's own operations serve x best: compiled ones, or where not `is_single_on_cpu`."""
    return torch.compiler.is_compiling() or not is_single_on_cpu(x)


def multiply(x: Tensor, matrix: Tensor, bias: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
    """The sum x @ matrix + bias + residual in float32 on the CPU, without gradients; x (…, row, column)."""
    if _onednn is None:
        out = x @ matrix if bias is None else functional.linear(x, matrix.T, bias)
        return out if residual is None else out.add_(residual)
    return (_opaque if torch.compiler.is_compiling() else _multiply)(x, matrix, bias, residual)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """The matrix Σ a bᵀ over rows of a (row, i) and b (row, j), (i, j); as `multiply`.

    OneDNN copies what it takes turned as its first factor: that had better be the narrower.
    """
    return multiply(a.T, b) if a.shape[1] <= b.shape[1] else multiply(b.T, a).T


def _multiply(x: Tensor, matrix: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    if residual is None:
        return _onednn(x, matrix.T, bias, "none", [], "")
    return _onednn.binary(x, residual, matrix.T, bias, "add")


# The compiler itself takes oneDNN's operation for weights that never change only.
_opaque = torch.library.custom_op("diffusion_lab::multiply", _multiply, mutates_args=())


@_opaque.register_fake
def _(x: Tensor, matrix: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], matrix.shape[-1])


class _Linear(torch.autograd.Function):
    """`linear` by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.is_added = residual is not None
        return multiply(x, weight.T, bias, residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        grad_weight = outer(rows, x.reshape(-1, x.shape[-1]))
        return multiply(grad, weight), grad_weight, rows.sum(0), grad if ctx.is_added else None
