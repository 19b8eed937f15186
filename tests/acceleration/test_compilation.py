import pytest
import torch

from diffusion_lab.acceleration import compile_blocks
from diffusion_lab.models import Architecture, DiffusionModelEncProcDec


@pytest.fixture
def make(toy_graph, tiny, perturb):
    def make(**options):
        torch.manual_seed(1)
        return perturb(DiffusionModelEncProcDec(toy_graph, 4, 3, 2, Architecture(**(tiny | options))))

    return make


def inputs(batch):
    generator = torch.Generator().manual_seed(batch)
    x, y = (torch.randn(batch, t, 1, 288, n, generator=generator) for t, n in ((2, 4), (1, 3)))
    return x, y, torch.full((batch, 1, 1, 1, 1), 0.7)


@pytest.mark.parametrize("processor", ["graphtransformer", "transformer"])
def test_compiled_blocks_compute_the_same(make, processor):
    """Traced and run by torch's own kernels: what a compiler is given is the network, in every batch size."""
    plain, compiled = make(processor=processor), make(processor=processor)
    assert compile_blocks(compiled, backend="aot_eager")
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for batch in (2, 1, 3):
        results = [model(*inputs(batch)) for model in (plain, compiled)]
        torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
        gradients = [
            torch.autograd.grad(result.square().mean(), list(model.parameters()))
            for result, model in zip(results, (plain, compiled), strict=True)
        ]
        for ours, reference in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


def test_without_a_compiler_it_says_so_and_goes_on(make, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    plain, model = make(), make()
    with pytest.warns(UserWarning, match=r"going on without it \(no C\+\+ compiler\)$"):
        assert not compile_blocks(model)
    assert torch.equal(model(*inputs(1)), plain(*inputs(1)))
