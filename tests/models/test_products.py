import platform
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from diffusion_lab.models import products


@pytest.fixture(params=["onednn", "torch"])
def library(request, monkeypatch):
    """Each library, wherever the tests run."""
    operation = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if request.param == "onednn" and operation is None:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "_onednn", operation if request.param == "onednn" else None)


def with_module(x, residual, module):
    return products.linear(x, module.weight, module.bias, residual)


@pytest.mark.usefixtures("library")
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


@pytest.mark.usefixtures("library")
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a trait of glibc")
def test_freed_memory_is_kept():
    """Three arrays of 8 MB, made and forgotten: when they were there some times, no page of them is new."""
    code = """
import resource, torch
from diffusion_lab.models import products
products.keep_freed_memory()
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2**21) for _ in range(3)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) < 1000  # of 6144
