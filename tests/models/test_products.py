import pytest
import torch
from torch import nn
from torch.nn import functional

from diffusion_lab.models import products


@pytest.fixture(params=["onednn", "torch"], autouse=True)
def library(request, monkeypatch):
    """Each library, wherever the tests run."""
    operation = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if request.param == "onednn" and operation is None:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "_onednn", operation if request.param == "onednn" else None)


def with_module(x, residual, module):
    return products.linear(x, module.weight, module.bias, residual)


@pytest.mark.parametrize("shape", [(3, 20), (1, 1)])
def test_result_and_gradients_are_those_of_torch(perturb, assert_agree, shape):
    inputs, module = (torch.randn(*shape, 6), torch.randn(*shape, 9)), perturb(nn.Linear(6, 9))

    def plain(x, residual, module):
        return residual + module(x)

    assert_agree(with_module, plain, inputs, [module], dtype=torch.float32, accuracy=1e-5)
    assert_agree(
        lambda x, module: products.linear(x, module.weight, module.bias),
        lambda x, module: module(x),
        inputs[:1],
        [module],
        dtype=torch.float32,
        accuracy=1e-5,
    )
    with torch.inference_mode():
        torch.testing.assert_close(with_module(*inputs, module), plain(*inputs, module))


def test_products_of_turned_matrices():
    a, b = torch.randn(5, 40), torch.randn(5, 7)
    for turned in (products.multiply(a.T, b), products.outer(a, b), products.outer(b, a).T):
        torch.testing.assert_close(turned, torch.einsum("ij,ik->jk", a, b))


def test_other_precisions_are_left_to_torch():
    x, weight, bias = torch.randn(2, 3, 4), torch.randn(5, 4), torch.randn(5)
    double = products.linear(x.double(), weight.double(), bias.double())
    assert torch.equal(double, functional.linear(x.double(), weight.double(), bias.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weight, bias).dtype == torch.bfloat16
