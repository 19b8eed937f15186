import torch
from torch import nn
from torch.nn import functional

from diffusion_lab.models.feed_forward import ROWS, feed_forward


def plain(x, expand, contract):
    return contract(functional.gelu(expand(x), approximate="tanh"))


def test_result_and_gradients_are_those_of_torch(perturb):
    """Over several pieces, the last one short."""
    expand, contract = perturb(nn.Linear(6, 24).double()), perturb(nn.Linear(24, 6).double())
    x = (3 * torch.randn(3, ROWS - 7, 6, dtype=torch.float64)).requires_grad_()
    direction, inputs = torch.randn_like(x), [x, *expand.parameters(), *contract.parameters()]
    outs = [function(x, expand, contract) for function in (feed_forward, plain)]
    torch.testing.assert_close(*outs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((out * direction).sum(), inputs) for out in outs]
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-11, atol=1e-11)
    with torch.inference_mode():
        torch.testing.assert_close(feed_forward(x, expand, contract), outs[1], rtol=1e-12, atol=1e-12)


def test_large_values_saturate():
    one = nn.Linear(1, 1, bias=True)
    nn.init.ones_(one.weight)
    nn.init.zeros_(one.bias)
    x = torch.tensor([[[-1e6], [-30.0], [0.0], [30.0], [1e6]]], requires_grad=True)
    out = feed_forward(x, one, one)
    torch.testing.assert_close(out, x.clamp(min=0))
    out.sum().backward()
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([0, 0, 0.5, 1, 1]))


def test_autocast_reaches_the_matrix_products():
    expand, contract = nn.Linear(8, 32), nn.Linear(32, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert feed_forward(torch.randn(1, 3, 8), expand, contract).dtype == torch.bfloat16
