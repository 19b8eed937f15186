"""Softmax attention of all nodes over all nodes; on the CPU in tiles that stay in cache.

Heads of 8 channels leave little arithmetic beside the exponentials, of which there are node² a head. For a
tile of queries qᵀ (channel, query), scaled by log₂e / √channel, what is needed is

    p = 2^(k qᵀ)  (node, query),   [o z] = [v 1]ᵀ p  (channel + 1, query),   output = o / z

so that the sum z of the weights is a row of the second product, and 2^x takes half the time of e^x. No
maximum is subtracted: queries and keys are layer-normalised, and where 2^x could overflow, torch's form is
called.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from diffusion_lab.models.feed_forward import is_single_on_cpu

TILE = 105_000  # weights at a time: 420 kB in float32, less than a core's own cache
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
        samples, nodes, heads, channels = query.shape
        out, total = query.new_empty(query.shape), query.new_empty(samples, heads, 1, nodes)
        sums, weights = query.new_empty(heads, channels + 1, nodes), _pieces(query)
        v1 = _with_one(value).permute(0, 2, 3, 1).contiguous()
        for sample in range(samples):
            by_head = query[sample].unbind(1), key[sample].unbind(1), v1[sample], sums
            for q, k, v, o in zip(*by_head, strict=True):
                of_tiles = (t.split(_tile(nodes), dim) for t, dim in ((q.T, 1), (o, 1)))
                for q_t, o_t, p in zip(*of_tiles, weights, strict=True):
                    torch.mm(v, torch.mm(k, q_t, out=p).exp2_(), out=o_t)
            total[sample] = sums[:, -1:]
            out[sample] = (sums[:, :-1] / sums[:, -1:]).permute(2, 0, 1)
        ctx.save_for_backward(query, key, value, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, out, total = ctx.saved_tensors
        samples, nodes, heads, channels = query.shape
        q1 = torch.cat([query, -total.log2().permute(0, 3, 1, 2)], dim=-1)
        g1 = torch.cat([grad, -(grad * out).sum(-1, keepdim=True)], dim=-1)
        k1, v1 = _with_one(key), _with_one(value)
        weights, slopes = _pieces(query), _pieces(query)
        grads = query.new_empty(3, samples, nodes, heads, channels)
        for sample in range(samples):
            turned = query.new_zeros(3, heads, channels, nodes)
            by_head = (t[sample].unbind(1) for t in (q1, g1, k1, v1))
            for q, g, k, v, grad_q, grad_k, grad_v in zip(*by_head, *turned, strict=True):
                of_tiles = (t.T.split(_tile(nodes), 1) for t in (q, g, grad_q.T))
                for q_t, g_t, grad_t, p, d in zip(*of_tiles, weights, slopes, strict=True):
                    torch.mm(k, q_t, out=p).exp2_()
                    torch.mm(v, g_t, out=d).mul_(p)
                    grad_v.addmm_(g_t[:-1], p.T)
                    grad_k.addmm_(q_t[:-1], d.T)
                    torch.mm(k.T[:-1], d, out=grad_t)
            grads[:, sample] = turned.permute(0, 3, 1, 2)
        grads[:2] *= math.log(2)
        return tuple(grads)


def _with_one(x: Tensor) -> Tensor:
    """Ones as one more channel of x (…, channel)."""
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)


def _tile(nodes: int) -> int:
    """Queries at a time: whole vectors of them, as products of other widths take a tenth longer."""
    return min(nodes, max(32, TILE // nodes // 32 * 32))


def _pieces(query: Tensor) -> list[Tensor]:
    """Room for the weights of each tile, (node, query): the same room, again and again."""
    nodes = query.shape[1]
    room = query.new_empty(nodes * _tile(nodes))
    sizes = [len(some) for some in query[0].split(_tile(nodes))]
    return [room[: nodes * size].view(nodes, size) for size in sizes]
