import pytest
import torch
from torch import nn

from diffusion_lab.acceleration import products
from diffusion_lab.acceleration.kernels import loops


@pytest.fixture(params=["onednn", "torch"])
def library(request, monkeypatch):
    """Each library, wherever the tests run."""
    operation = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if request.param == "onednn" and operation is None:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "_onednn", operation if request.param == "onednn" else None)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", [(3, 20), (1, 1)])
def test_result_and_gradients_are_those_of_torch(perturb, assert_agree, shape):
    module, x = perturb(nn.Linear(6, 9)), torch.randn(*shape, 6)

    def ours(x, module):
        return products.linear(x, module.weight, module.bias)

    assert_agree(ours, lambda x, module: module(x), [x], [module], dtype=torch.float32, accuracy=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x, module), module(x))


@pytest.mark.usefixtures("library")
def test_products_of_transposed_matrices():
    a, b = torch.randn(5, 40), torch.randn(5, 7)
    for result in (products.multiply(a.T, b), products.outer(a, b), products.outer(b, a).T):
        torch.testing.assert_close(result, torch.einsum("ij,ik->jk", a, b))


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
