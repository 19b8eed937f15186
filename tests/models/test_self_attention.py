import math

import pytest
import torch

from diffusion_lab.models import self_attention as module
from diffusion_lab.models.self_attention import self_attention


def plain(query, key, value):
    """Softmax attention as the formula says it, each tensor (sample, node, head, channel)."""
    logits = torch.einsum("sqhc,skhc->shqk", query, key) / math.sqrt(query.shape[-1])
    return torch.einsum("shqk,skhc->sqhc", logits.softmax(-1), value)


@pytest.mark.parametrize("size", [1.0, 30.0])  # 30: logits beyond what is exponentiated as it is
def test_result_and_gradients_are_those_of_the_formula(size, monkeypatch):
    """Over several tiles, the last one short, of tensors that lie apart."""
    monkeypatch.setattr(module, "TILE", 16 * 45)
    torch.manual_seed(2)
    qkv = torch.randn(2, 45, 3, 4, 5, dtype=torch.float64)
    tensors = [t.requires_grad_() for t in (size * qkv).unbind(2)]
    outs = [function(*tensors) for function in (self_attention, plain)]
    torch.testing.assert_close(*outs, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(outs[0])
    gradients = [torch.autograd.grad((out * direction).sum(), tensors) for out in outs]
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_equal_keys_average_the_values():
    query, value = torch.randn(1, 7, 2, 8), torch.randn(1, 7, 2, 8)
    out = self_attention(query, torch.ones(1, 7, 2, 8), value)
    torch.testing.assert_close(out, value.mean(1, keepdim=True).expand_as(out))


def test_half_precision_is_left_to_torch():
    tensors = torch.randn(3, 1, 9, 2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert self_attention(*tensors).dtype == torch.bfloat16
    out = self_attention(*tensors.bfloat16())
    torch.testing.assert_close(out.float(), self_attention(*tensors), atol=0.05, rtol=0.05)
