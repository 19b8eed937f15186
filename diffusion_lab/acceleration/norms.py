"""Layer norms in one pass over each row: over the channels of a node, or of each head."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffusion_lab.acceleration.kernels import loops
from diffusion_lab.acceleration.kernels import rows as kernels


def layer_norm(x: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """LN(x)·gain + shift without gradients.

    Args:
        x: (sample, node, channel).
        gain: (sample, channel).
        shift: as gain.

    Returns:
        The result, and the mean and inverse standard deviation of each node, (sample, node, 2).
    """
    out, statistics = torch.empty_like(x), x.new_empty(*x.shape[:2], 2)
    arguments = (x, gain, shift, out, statistics)
    loops.run(kernels.layer_norm, x.shape[:2].numel(), *arguments, least=kernels.LEAST)
    return out, statistics


def layer_norm_backward(x: Tensor, gain: Tensor, statistics: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, gain and shift, given that of the result; shapes as `layer_norm`."""
    blocks = -(-x.shape[1] // kernels.ROWS)
    grad_x, sums = torch.empty_like(x), x.new_empty(2, len(x), blocks, x.shape[2])
    arguments = (x, gain, statistics, grad, grad_x, *sums)
    least = kernels.LEAST // kernels.ROWS
    loops.run(kernels.layer_norm_backward, len(x) * blocks, *arguments, least=least)
    return grad_x, *sums.sum(2)


def split_heads(x: Tensor, gains: tuple[Tensor, ...], heads: tuple[int, int]) -> tuple[Tensor, ...]:
    """Split queries, keys and values, and layer-norm the first of them over the channels of each head.

    Args:
        x: (sample, node, part·head·channel).
        gains: (channel,) for each part that is normalised; the remaining parts are only split off.
        heads: number of heads, and channels of each.

    Returns:
        The parts, each contiguous, (sample, node, head·channel).
    """
    return _SplitHeads.apply(x.contiguous(), heads, *gains)


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: tuple[int, int], *gains: Tensor) -> tuple[Tensor, ...]:
        rows, width = x.flatten(0, 1), heads[0] * heads[1]
        gains = tuple(gain.repeat(heads[0]) for gain in gains)
        parts = [x.new_empty(len(rows), width) for _ in gains]
        statistics = x.new_empty(len(gains), len(rows), heads[0], 2)
        for i, part in enumerate(parts):
            arguments = (rows, i * width, gains[i], part, statistics[i])
            loops.run(kernels.head_norm, len(rows), *arguments, least=kernels.LEAST)
        parts += [part.contiguous() for part in rows.split(width, dim=1)[len(gains) :]]
        ctx.save_for_backward(rows, statistics, *gains)
        ctx.heads = heads
        return tuple(part.view(*x.shape[:2], width) for part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, statistics, *gains = ctx.saved_tensors
        width = ctx.heads[0] * ctx.heads[1]
        blocks = -(-len(rows) // kernels.ROWS)
        grad_rows, grad_gains = torch.empty_like(rows), rows.new_empty(len(gains), blocks, width)
        for i, grad in enumerate(grads):
            grad = grad.reshape(len(rows), width)
            if i >= len(gains):
                grad_rows[:, i * width : (i + 1) * width] = grad
                continue
            arguments = (rows, i * width, gains[i], statistics[i], grad, grad_rows, grad_gains[i])
            least = kernels.LEAST // kernels.ROWS
            loops.run(kernels.head_norm_backward, blocks, *arguments, least=least)
        of_gains = grad_gains.view(len(gains), blocks, *ctx.heads).sum((1, 2))
        return grad_rows.view(*grads[0].shape[:2], -1), None, *of_gains
