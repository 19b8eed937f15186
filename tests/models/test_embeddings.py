import math

import pytest
import torch

from diffusion_lab.models import NoiseConditioning, SinusoidalEmbeddings


def test_frequencies_by_hand():
    # z = 4, so f_k = 10 000^(-k/4) = 1, 1/10, 1/100, 1/1000.
    embed = SinusoidalEmbeddings(8, max_period=10_000)
    torch.testing.assert_close(embed.frequencies, torch.tensor([1.0, 0.1, 0.01, 0.001]))
    angles = [2.0, 0.2, 0.02, 0.002]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(embed(torch.tensor([2.0]))[0], torch.tensor(expected))


def test_default_period_is_a_thousand():
    # z = 3: 1000^(-1/3) = 0.1, 1000^(-2/3) = 0.01.
    torch.testing.assert_close(SinusoidalEmbeddings(6).frequencies, torch.tensor([1.0, 0.1, 0.01]))


@pytest.mark.parametrize("channels", [0, 1, 7])
def test_an_odd_width_is_refused(channels):
    with pytest.raises(ValueError, match=f"even and at least 2, got {channels}"):
        SinusoidalEmbeddings(channels)


def test_conditioning_is_linear_silu_linear():
    conditioning = NoiseConditioning(4, 3)
    first, _, second = conditioning.mlp
    c_noise = torch.tensor([-1.0, 0.3])
    hidden = conditioning.embedding(c_noise) @ first.weight.T + first.bias
    expected = (hidden / (1 + torch.exp(-hidden))) @ second.weight.T + second.bias
    torch.testing.assert_close(conditioning(c_noise), expected)
    assert conditioning(c_noise).shape == (2, 3)


def test_levels_of_training_are_told_apart():
    """ln(σ)/4 from σ = 0.02 to 100 spans 2.1: neighbouring levels of a 100-step schedule differ visibly."""
    c_noise = torch.linspace(math.log(0.02) / 4, math.log(100) / 4, 100)
    embedded = SinusoidalEmbeddings(32)(c_noise)
    assert (embedded.diff(dim=0).norm(dim=1) > 0.02).all()
    assert torch.pdist(embedded).min() > 0.02
