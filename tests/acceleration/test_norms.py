import pytest
import torch
from torch import nn

from diffusion_lab.acceleration.norms import split_heads


@pytest.mark.parametrize("normed", [1, 2])
def test_parts_are_layer_normed_by_head(assert_agree, normed):
    """Result and gradients, of 3 heads of 4 channels, over several blocks; the last parts are left alone."""
    heads = (3, 4)

    def fast(x, gains):
        return torch.stack(split_heads(x, tuple(gains), heads))

    def plain(x, gains):
        parts = list(x.unflatten(-1, (3, *heads)).unbind(2))
        for i, gain in enumerate(gains):
            norm = nn.LayerNorm(4, bias=False, dtype=x.dtype)
            parts[i] = torch.func.functional_call(norm, {"weight": gain}, parts[i])
        return torch.stack(parts).flatten(-2)

    inputs = 3 * torch.randn(2, 150, 36) + 1, torch.randn(normed, 4)
    assert_agree(fast, plain, inputs, dtype=torch.float32, accuracy=1e-5, gradients=100)
