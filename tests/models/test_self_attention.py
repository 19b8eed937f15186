import math

import pytest
import torch

from diffusion_lab.models.self_attention import self_attention


def plain(query, key, value):
    """Softmax attention as the formula says it, each tensor (sample, node, head, channel)."""
    logits = torch.einsum("sqhc,skhc->shqk", query, key) / math.sqrt(query.shape[-1])
    return torch.einsum("shqk,skhc->sqhc", logits.softmax(-1), value)


@pytest.mark.parametrize("channels", [5, 8, 12])
@pytest.mark.parametrize("size", [1.0, 100.0])  # 100: 2^logit overflows as it is
def test_result_and_gradients_are_those_of_the_formula(assert_agree, size, channels):
    """Of tensors that lie apart, in single precision; the formula in double precision."""
    qkv = torch.randn(2, 45, 3, 4, channels)
    qkv[:, :, :2] *= size**0.5
    assert_agree(self_attention, plain, qkv.unbind(2), dtype=torch.float32, accuracy=3e-6 * size)


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
