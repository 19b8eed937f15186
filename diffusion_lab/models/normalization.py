"""Layer normalisation whose scale and bias follow the noise level, and that of the channels of a head."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from diffusion_lab.models.feed_forward import runs_plain

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
        normalised = functional.layer_norm(x, self.normalized_shape)
        out = torch.addcmul(self.bias(cond)[:, None], normalised, 1 + self.scale(cond)[:, None])
        return out.type_as(x) if self.autocast else out


def centred(linear: nn.Linear, num_parts: int, heads: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weight and bias of `linear` such that its first parts have mean 0 over the channels of each head.

    Taking the mean away is linear, and costs next to nothing on the weights; what is left of the layer norm
    of the outputs is `head_norm`.

    Args:
        linear: its outputs are (part, head, channel).
        num_parts: how many parts are centred.
        heads: number of heads, channels of each.
    """
    answer = []
    for parameter in (linear.weight, linear.bias):
        first, rest = parameter.tensor_split([num_parts * heads[0] * heads[1]])
        by_head = first.unflatten(0, (-1, heads[1]))
        answer.append(torch.cat([(by_head - by_head.mean(1, keepdim=True)).flatten(0, 1), rest]))
    return answer[0], answer[1]


def head_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Divide x by √(mean of x² + ε) over its channels, times weight: the layer norm of an x with mean 0.

    Args:
        x: (sample, node, head, channel).
        weight: (channel,).

    Returns:
        The shape of x.
    """
    if runs_plain(x):
        return functional.rms_norm(x, weight.shape, weight.to(x.dtype), EPS)
    return _HeadNorm.apply(x, weight)


class _HeadNorm(torch.autograd.Function):
    """Sums over the few channels of a head, and the way back, as products with ones: a third of the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows, ones = x.flatten(2).flatten(0, 1), _ones(x)
        mean = torch.mm(rows.square(), ones).div_(len(weight))
        scale = mean.add_(EPS).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return torch.mm(scale, _gains(ones, weight).T).mul_(rows).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        # y = x r w with r = (mean x² + ε)^(−1/2): ∂x = ∂y w r − x r³ Σ(∂y w x) / channels, ∂w = Σ ∂y x r.
        x, weight, scale = ctx.saved_tensors
        rows, grads, ones = x.flatten(2).flatten(0, 1), grad.flatten(2).flatten(0, 1), _ones(x)
        gains, product = _gains(ones, weight), grads * rows
        sums = torch.mm(product, gains).mul_(scale.pow(3)).div_(len(weight))
        grad_rows = torch.mm(scale, gains.T).mul_(grads)
        grad_rows.addcmul_(rows, torch.mm(sums, ones.T), value=-1)
        of_heads = torch.mm(product.T, scale).view(*x.shape[2:], x.shape[2])  # each head's, by each head's r
        return grad_rows.view(x.shape), of_heads.diagonal(dim1=0, dim2=2).sum(1)


def _ones(x: Tensor) -> Tensor:
    """(head·channel, head): 1 where the channel is of the head."""
    return torch.eye(x.shape[2], dtype=x.dtype).repeat_interleave(x.shape[3], 0)


def _gains(ones: Tensor, weight: Tensor) -> Tensor:
    """`ones` with each channel's weight in place of 1."""
    return ones * weight.repeat(ones.shape[1])[:, None]
