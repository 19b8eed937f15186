import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from diffusion_lab.models.feed_forward import ROWS, feed_forward


def plain(x, residual, expand, contract):
    return residual + contract(functional.gelu(expand(x), approximate="tanh"))


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_result_and_gradients_are_those_of_torch(perturb, dtype, accuracy):
    """Over several pieces, the last one short; in single precision by our loop."""
    linears = perturb(nn.Linear(6, 24)), perturb(nn.Linear(24, 6))
    x, residual, direction = torch.randn(3, 3, ROWS - 7, 6, dtype=torch.float64).unbind(0)
    outs, gradients = [], []
    for function, precision in ((feed_forward, dtype), (plain, torch.float64)):
        copies = [copy.deepcopy(linear).to(precision) for linear in linears]
        inputs = [t.to(precision, copy=True).requires_grad_() for t in (3 * x, residual)]
        out = function(*inputs, *copies)
        parameters = [p for linear in copies for p in linear.parameters()]
        gradients.append(torch.autograd.grad((out * direction).sum(), inputs + parameters))
        outs.append(out.double())
        with torch.inference_mode():
            torch.testing.assert_close(function(*inputs, *copies).double(), outs[0], rtol=0, atol=accuracy)
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours.double(), reference, rtol=accuracy, atol=30 * accuracy)


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
