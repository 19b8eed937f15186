import pytest
import torch
from torch import nn
from torch.nn import functional

from diffusion_lab.models.feed_forward import ROWS, feed_forward


def plain(x, residual, expand, contract):
    return residual + contract(functional.gelu(expand(x), approximate="tanh"))


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_result_and_gradients_are_those_of_torch(perturb, assert_agree, dtype, accuracy):
    """Over several pieces, the last one short; in single precision by our loop."""
    linears = perturb(nn.Linear(6, 24)), perturb(nn.Linear(24, 6))
    inputs = 3 * torch.randn(3, ROWS - 7, 6), torch.randn(3, ROWS - 7, 6)
    assert_agree(feed_forward, plain, inputs, linears, dtype=dtype, accuracy=accuracy, gradients=30)
    inputs = [t.to(dtype) for t in inputs]
    linears = [linear.to(dtype) for linear in linears]
    with torch.inference_mode():  # where the hidden layer is not kept
        torch.testing.assert_close(feed_forward(*inputs, *linears), plain(*inputs, *linears))


def test_large_values_saturate():
    one = nn.Linear(1, 1, bias=True)
    nn.init.ones_(one.weight)
    nn.init.zeros_(one.bias)
    x = torch.tensor([[[-1e6], [-30.0], [0.0], [30.0], [1e6]]], requires_grad=True)
    out = feed_forward(x, torch.zeros_like(x), one, one)
    torch.testing.assert_close(out, x.clamp(min=0))
    out.sum().backward()
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([0, 0, 0.5, 1, 1]))


def test_autocast_reaches_the_matrix_products():
    expand, contract = nn.Linear(8, 32), nn.Linear(32, 8)
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.randn(1, 3, 8)
        assert feed_forward(x, torch.zeros_like(x).bfloat16(), expand, contract).dtype == torch.bfloat16
