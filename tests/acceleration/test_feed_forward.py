import pytest
import torch
from torch import nn
from torch.nn import functional

from diffusion_lab.acceleration.feed_forward import ROWS, feed_forward


def plain(x, gain, shift, expand, contract):
    normed = functional.layer_norm(x, x.shape[-1:]) * gain[:, None] + shift[:, None]
    return x + contract(functional.gelu(expand(normed), approximate="tanh"))


def test_result_and_gradients_are_those_of_torch(perturb, assert_agree):
    """Over several pieces of each sample, the last one short."""
    linears = perturb(nn.Linear(6, 24)), perturb(nn.Linear(24, 6))
    inputs = 3 * torch.randn(3, ROWS + 7, 6), torch.randn(3, 6), torch.randn(3, 6)
    assert_agree(feed_forward, plain, inputs, linears, dtype=torch.float32, accuracy=1e-5, gradients=100)
    with torch.inference_mode():  # where the hidden layer is not kept
        torch.testing.assert_close(feed_forward(*inputs, *linears), plain(*inputs, *linears))


def test_large_values_saturate():
    """Of x = (1, -1), normed to itself, the hidden layer is (shift, -shift)."""
    one = nn.Linear(2, 2)
    nn.init.eye_(one.weight)
    nn.init.zeros_(one.bias)
    x = torch.tensor([1.0, -1.0]).expand(5, 1, 2)
    hidden = torch.tensor([-1e6, -30.0, 0.0, 30.0, 1e6])[:, None].expand(5, 2).clone().requires_grad_()
    out = feed_forward(x, torch.zeros(5, 2), hidden, one, one)
    torch.testing.assert_close(out - x, hidden.clamp(min=0)[:, None])
    out.sum().backward()
    torch.testing.assert_close(hidden.grad[:, 0], torch.tensor([0, 0, 0.5, 1, 1]))


def test_conditions_of_another_number_of_samples_are_refused():
    with pytest.raises(RuntimeError, match="conditions of 5 samples for 2 samples"):
        feed_forward(
            torch.randn(2, 3, 4), torch.ones(5, 4), torch.zeros(5, 4), nn.Linear(4, 8), nn.Linear(8, 4)
        )
