import platform
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from diffusion_lab.models import products
from diffusion_lab.models.kernels import loops


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


@pytest.mark.parametrize(("vendor", "amd"), [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_processors_are_told_apart(vendor, amd, tmp_path, monkeypatch):
    facts = tmp_path / "cpuinfo"
    facts.write_text(f"processor : 0\nvendor_id : {vendor}\n")
    monkeypatch.setattr(products, "Path", lambda _: facts)
    assert products._is_amd() is amd
    facts.unlink()
    monkeypatch.setattr(products.platform, "processor", lambda: f"AMD64 Family 25, {vendor}")
    assert products._is_amd() is amd


@pytest.mark.parametrize(
    ("features", "own", "set_to"),
    [
        ("+avx2,+avx512f", None, "+avx2,+avx512f,-prefer-256-bit"),
        ("+avx2", None, None),
        ("+avx512f", "+avx2", "+avx2"),  # what the user asked Numba for stays
    ],
)
def test_numba_is_told_of_whole_registers_where_there_are(features, own, set_to, monkeypatch):
    monkeypatch.setattr(loops, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(loops.numba.config, "CPU_FEATURES", own)
    loops._use_whole_registers()
    assert set_to == loops.numba.config.CPU_FEATURES


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
