"""Softmax attention of all nodes over all nodes; on the CPU in tiles that stay in cache.

Heads of 8 channels leave little arithmetic beside the exponentials, of which there are node² a head. For a
tile of queries qᵀ (channel, query), scaled by log₂e / √channel, what is needed is

    p = 2^(k qᵀ)  (node, query),   [o z] = [v 1]ᵀ p  (channel + 1, query),   output = o / z

so that the sum z of the weights is a row of the second product, and 2^x takes half the time of e^x. No
maximum is subtracted: queries and keys are layer-normalised, and where 2^x could overflow, torch's form is
called.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from diffusion_lab.models.feed_forward import is_single_on_cpu

TILE = 120_000  # weights at a time: half a megabyte in float32, the size of a core's own cache
LARGEST_EXPONENT = 100.0  # of 2, summed over nodes and below the largest float32, 2¹²⁸


def self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with query over key and value, each (sample, node, head, channel); returns that shape."""
    if is_single_on_cpu(query):
        return _on_cpu(query, key, value)
    return _of_torch(query, key, value)


def _of_torch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    turned = (t.transpose(1, 2) for t in (query, key, value))
    return functional.scaled_dot_product_attention(*turned).transpose(1, 2)


@torch.compiler.disable  # a compiler would unroll the loops over heads and tiles
def _on_cpu(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    channels = query.shape[-1]
    scaled = query * (math.log2(math.e) / math.sqrt(channels))
    largest = channels * scaled.detach().abs().amax() * key.detach().abs().amax()
    if largest > LARGEST_EXPONENT:
        return _of_torch(query, key, value)
    return _TiledAttention.apply(scaled, key, value)


class _TiledAttention(torch.autograd.Function):
    """Keeps the result and z, and makes the weights again in the backward pass.

    With D = Σ ∂o o over channels, p = 2^(k qᵀ − log₂z) and ∂l = p (v ∂oᵀ − D) of the same shape:
    ∂v = p ∂o, ∂q = ln 2 ∂lᵀ k, ∂k = ln 2 ∂l q. The terms −log₂z and −D ride along as one more channel.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        samples, nodes, heads, _ = query.shape
        out, total = query.new_empty(query.shape), query.new_empty(samples, nodes, heads)
        one, weights = query.new_ones(1, nodes), query.new_empty(_tile(nodes) * nodes)
        for sample in range(samples):
            for head in range(heads):
                q, k, v = (t[sample, :, head] for t in (query, key, value))
                v1 = torch.cat([v.T, one])
                for some in _tiles(nodes):
                    p = _view(weights, nodes, some)
                    o = v1 @ torch.mm(k, q[some].T, out=p).exp2_()
                    total[sample, some, head] = o[-1]
                    torch.div(o[:-1].T, o[-1, :, None], out=out[sample, some, head])
        ctx.save_for_backward(query, key, value, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, out, total = ctx.saved_tensors
        samples, nodes, heads, channels = query.shape
        q1 = torch.cat([query, -total.log2()[..., None]], dim=-1)
        g1 = torch.cat([grad, -(grad * out).sum(-1, keepdim=True)], dim=-1)
        one = query.new_ones(nodes, 1)
        weights, slopes = query.new_empty(2, _tile(nodes) * nodes)
        grads = query.new_empty(3, samples, nodes, heads, channels)
        turned = query.new_empty(3, channels, nodes)
        for sample in range(samples):
            for head in range(heads):
                q, k, v, g = (t[sample, :, head] for t in (query, key, value, grad))
                k1, v1 = torch.cat([k, one], dim=1), torch.cat([v, one], dim=1)
                grad_q, grad_k, grad_v = turned.zero_()
                for some in _tiles(nodes):
                    p, d = _view(weights, nodes, some), _view(slopes, nodes, some)
                    torch.mm(k1, q1[sample, some, head].T, out=p).exp2_()
                    torch.mm(v1, g1[sample, some, head].T, out=d).mul_(p)
                    grad_v.addmm_(g[some].T, p.T)
                    grad_k.addmm_(q[some].T, d.T)
                    grad_q[:, some] = k.T @ d
                grads[:, sample, :, head] = turned.transpose(1, 2)
        grads[:2] *= math.log(2)
        return tuple(grads)


def _tile(nodes: int) -> int:
    """Queries at a time."""
    return min(nodes, max(16, TILE // nodes))


def _tiles(nodes: int) -> Iterator[slice]:
    tile = _tile(nodes)
    return (slice(first, first + tile) for first in range(0, nodes, tile))


def _view(buffer: Tensor, nodes: int, some: slice) -> Tensor:
    """(node, query) for some queries."""
    count = min(some.stop, nodes) - some.start
    return buffer[: nodes * count].view(nodes, count)
