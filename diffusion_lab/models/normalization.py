"""Layer normalisation whose scale and shift depend on the noise level."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConditionalLayerNorm(nn.Module):
    """LN(x)·(1 + Linear_s(cond)) + Linear_b(cond), where LN has no affine parameters of its own.

    The same idea as FiLM (Perez et al. 2018) and adaLN-zero (Peebles & Xie 2023): with `zero_init` the layer
    starts as a plain layer norm and learns how the noise levels differ.

    Args:
        normalized_shape: width of x.
        condition_shape: width of the conditioning vector.
        zero_init: start both linear maps at zero.
        autocast: return x's own type; otherwise the type torch computes the norm in, float32 under autocast.
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


class QKNorm(nn.Module):
    """Layer norm of queries and keys over the channels of a head: it bounds the logits (Henry et al. 2020).

    Args:
        head_channels: channels per head.
    """

    def __init__(self, head_channels: int) -> None:
        super().__init__()
        self.query = nn.LayerNorm(head_channels, bias=False)
        self.key = nn.LayerNorm(head_channels, bias=False)

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise both, each (sample, node, head, channel), and keep their types under autocast."""
        return self.query(query).type_as(query), self.key(key).type_as(key)
