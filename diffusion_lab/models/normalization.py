"""Layer normalisation whose scale and shift follow the noise level, and that of the channels of a head."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from diffusion_lab.models.products import linear, runs_plain

EPS = 1e-5


class ConditionalLayerNorm(nn.Module):
    """LN(x)·(1 + Linear_s(cond)) + Linear_b(cond), with LN free of its own affine parameters.

    The same idea as FiLM (Perez et al. 2018) and adaLN-zero (Peebles & Xie 2023): with `zero_init` the layer
    starts as a plain layer norm and learns how each noise level differs.

    Args:
        normalized_shape: width of x.
        condition_shape: width of the conditioning vector.
        zero_init: start both linear maps at zero.
        autocast: return x's own type; else what torch computes the norm in, float32 under autocast.
    """

    def __init__(
        self, normalized_shape: int, condition_shape: int, zero_init: bool = True, autocast: bool = False
    ) -> None:
        super().__init__()
        self.normalized_shape, self.autocast = (normalized_shape,), autocast
        self.scale = nn.Linear(condition_shape, normalized_shape)
        self.bias = nn.Linear(condition_shape, normalized_shape)
        if zero_init:
            for linear in (self.scale, self.bias):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Normalise x (sample, node, channel) given cond (sample, condition); returns the shape of x."""
        out = conditional_norm(x, *self.gain_and_shift(cond))
        return out.type_as(x) if self.autocast else out

    def gain_and_shift(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """What the normalised x is multiplied by, and what is added then, each (sample, channel)."""
        return 1 + self.scale(cond), self.bias(cond)


def conditional_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """LN(x)·gain + shift for x (sample, node, channel), gain and shift (sample, channel)."""
    if not runs_plain(x):
        return _LayerNorm.apply(x.contiguous(), gain, shift)
    normalised = functional.layer_norm(x, x.shape[-1:], eps=EPS)
    return torch.addcmul(shift[:, None], normalised, gain[:, None])


def heads_of(x: Tensor, layer: nn.Linear, heads: tuple[int, int], *gains: Tensor) -> tuple[Tensor, ...]:
    """What a layer makes of x, in parts, the first of them layer-normed over the channels of each head.

    To take a mean away is linear, and costs next to nothing on the weights. What is left of the norm is to
    divide by √(mean of squares + ε).

    Args:
        x: (sample, node, channel).
        layer: its outputs are (part, head, channel).
        heads: number of heads, channels of each.
        gains: (channel,) of each part that is normed, and multiplied by it; further parts stay as they are.

    Returns:
        The parts, each (sample, node, head, channel).
    """
    width = heads[0] * heads[1]
    weights, biases = layer.weight.split(width), layer.bias.split(width)
    normed = [torch.cat([_centred(part, heads) for part in some[: len(gains)]]) for some in (weights, biases)]
    rest = zip(weights[len(gains) :], biases[len(gains) :], strict=True)
    return (
        *_normed(linear(x, *normed), heads, gains),
        *(linear(x, weight, bias).unflatten(-1, heads) for weight, bias in rest),
    )


def _centred(parameter: Tensor, heads: tuple[int, int]) -> Tensor:
    """Weight or bias such that outputs have mean 0 over the channels of each head."""
    by_head = parameter.unflatten(0, heads)
    return (by_head - by_head.mean(1, keepdim=True)).flatten(0, 1)


def _normed(x: Tensor, heads: tuple[int, int], gains: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Divide x (sample, node, part·head·channel) by the root mean square over the channels of a head."""
    if not runs_plain(x):
        return _NormedHeads.apply(x, heads, *gains)
    parts = x.unflatten(-1, (-1, *heads)).unbind(2)
    return tuple(
        functional.rms_norm(part, gain.shape, gain.to(x.dtype), EPS)
        for part, gain in zip(parts, gains, strict=True)
    )


class _LayerNorm(torch.autograd.Function):
    """`conditional_norm` in float32 on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        if len(gain) != len(x):
            raise RuntimeError(f"conditions of {len(gain)} samples for {len(x)} samples")
        out, statistics = layer_norm(x, gain, shift)
        ctx.save_for_backward(x, gain, statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return layer_norm_backward(*ctx.saved_tensors, grad.contiguous())


def layer_norm(x: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """LN(x)·gain + shift in float32 on the CPU, without gradients.

    Args:
        x: (sample, node, channel).
        gain: (sample, channel).
        shift: as gain.

    Returns:
        The result, and of each node the mean and one over the standard deviation, (sample, node, 2).
    """
    from diffusion_lab.models import kernels

    out, statistics = torch.empty_like(x), x.new_empty(*x.shape[:2], 2)
    arguments = (x, gain, shift, out, statistics)
    kernels.run(kernels.layer_norm, x.shape[:2].numel(), *arguments, least=kernels.LEAST)
    return out, statistics


def layer_norm_backward(x: Tensor, gain: Tensor, statistics: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, gain and shift, given that of the result; all shaped as in `layer_norm`."""
    from diffusion_lab.models import kernels

    blocks = -(-x.shape[1] // kernels.ROWS)
    grad_x, sums = torch.empty_like(x), x.new_empty(2, len(x), blocks, x.shape[2])
    arguments = (x, gain, statistics, grad, grad_x, *sums)
    least = kernels.LEAST // kernels.ROWS
    kernels.run(kernels.layer_norm_backward, len(x) * blocks, *arguments, least=least)
    return grad_x, *sums.sum(2)


class _NormedHeads(torch.autograd.Function):
    """`_normed` in float32 on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: tuple[int, int], *gains: Tensor) -> tuple[Tensor, ...]:
        from diffusion_lab.models import kernels

        rows, width = x.flatten(0, 1), heads[0] * heads[1]
        gains = [gain.repeat(heads[0]) for gain in gains]
        parts = [x.new_empty(len(rows), width) for _ in gains]
        scales = x.new_empty(len(gains), len(rows), heads[0])
        for i, part in enumerate(parts):
            arguments = (rows, i * width, gains[i], part, scales[i])
            kernels.run(kernels.head_norm, len(rows), *arguments, least=kernels.LEAST)
        ctx.save_for_backward(rows, scales, *gains)
        ctx.heads = heads
        return tuple(part.view(*x.shape[:2], *heads) for part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from diffusion_lab.models import kernels

        rows, scales, *gains = ctx.saved_tensors
        samples, width = len(grads[0]), ctx.heads[0] * ctx.heads[1]
        blocks = -(-len(rows) // kernels.ROWS)
        grad_rows, grad_gains = torch.empty_like(rows), rows.new_empty(len(gains), blocks, width)
        for i, grad in enumerate(grads):
            grad = grad.reshape(len(rows), width)
            arguments = (rows, i * width, gains[i], scales[i], grad, grad_rows, grad_gains[i])
            least = kernels.LEAST // kernels.ROWS
            kernels.run(kernels.head_norm_backward, blocks, *arguments, least=least)
        return (
            grad_rows.view(samples, -1, rows.shape[1]),
            None,
            *grad_gains.view(len(gains), -1, *ctx.heads).sum((1, 2)),
        )
