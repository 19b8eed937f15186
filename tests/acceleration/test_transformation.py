import copy
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from diffusion_lab.acceleration import accelerate
from diffusion_lab.assets import checkpoints
from diffusion_lab.inference import load_release
from diffusion_lab.models import Architecture, ConditionalLayerNorm, DiffusionModelEncProcDec

BOTH = pytest.mark.parametrize("processor", ["graphtransformer", "transformer"])


@pytest.fixture
def make(toy_graph, tiny, perturb):
    def make(**options):
        torch.manual_seed(1)
        return perturb(DiffusionModelEncProcDec(toy_graph, 4, 3, 2, Architecture(**(tiny | options))))

    return make


def inputs(model, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = model.data_nodes.attributes.shape[0]
    x = torch.randn(batch, model.multistep_input, 1, cells, model.num_input, generator=generator)
    y = torch.randn(batch, 1, 1, cells, model.num_output, generator=generator)
    return x, y, torch.rand(batch, 1, 1, 1, 1, generator=generator) * 3 + 0.1


@pytest.fixture
def ran(monkeypatch):
    """How often each of our loops was called."""
    from diffusion_lab.acceleration.kernels import loops

    calls, run = [], loops.run
    monkeypatch.setattr(
        loops, "run", lambda kernel, *args, **more: calls.append(kernel) or run(kernel, *args, **more)
    )
    return calls


@BOTH
def test_answers_and_gradients_are_those_of_the_plain_network(make, processor, ran):
    plain, fast = make(processor=processor), make(processor=processor)
    assert list(accelerate(fast).replaced) == [
        *("encoder", "encoder.mlp"),
        *(name for i in range(2) for name in (f"processor.blocks.{i}", f"processor.blocks.{i}.mlp")),
        *("decoder", "decoder.mlp"),
    ]
    results = [model(*inputs(plain)) for model in (plain, fast)]
    assert ran
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    gradients = [
        torch.autograd.grad(result.square().mean(), list(model.parameters()))
        for result, model in zip(results, (plain, fast), strict=True)
    ]
    for reference, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", checkpoints())
def test_released_networks_keep_their_answers(name):
    """D(y; σ) in the range of σ that sampling passes."""
    _, model, *_ = load_release(checkpoints()[name])
    x, y, _ = inputs(model, batch=1)
    with torch.inference_mode():
        plain = [model(x, sigma * y, torch.full((1, 1, 1, 1, 1), sigma)) for sigma in (0.02, 1.0, 90.0)]
        accelerate(model)
        fast = [model(x, sigma * y, torch.full((1, 1, 1, 1, 1), sigma)) for sigma in (0.02, 1.0, 90.0)]
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)


def test_it_can_be_undone_and_leaves_the_weights_alone(make, ran):
    model, plain = make(), make()
    acceleration = accelerate(model)
    assert accelerate(model).replaced == {}  # all is fast already
    assert list(model.state_dict()) == list(plain.state_dict())
    acceleration.undo()
    with torch.inference_mode():
        assert torch.equal(model(*inputs(model)), plain(*inputs(model)))
    assert ran == []


def test_a_copy_is_as_fast_and_has_its_own_weights(make, ran):
    """Averages of weights are copies of an accelerated network."""
    model = make()
    accelerate(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.output.weight.zero_()
        twin.encoder.mlp.contract.weight.add_(1)
        twin.output.bias.copy_(twin.encoder.mlp.contract.weight.mean())
        before = model(*inputs(model))
        ran.clear()
        twin.encoder.forward(
            *(torch.zeros(1, n, 16) for n in (42,)),
            torch.zeros(1, 16),
            twin.encoder_edges(),
            twin.encoder_edges.neighbours,
            torch.zeros(1, 288, 16),
        )
        assert ran
        assert torch.equal(model(*inputs(model)), before)
    assert twin.encoder.forward.__self__ is twin.encoder


@pytest.mark.parametrize("before", [True, False])
@BOTH
def test_hooks_are_heard(make, processor, before, ran):
    """Whether they were there first or come later; one on a part brings back its block alone."""
    model, heard = make(processor=processor), []
    if not before:
        accelerate(model)
    parts = {
        n: m
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear | nn.LayerNorm | ConditionalLayerNorm)
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: heard.append(name))
    if before:
        assert accelerate(model).replaced == {}
    model(*inputs(model))
    assert set(heard) == set(parts)
    assert ran == []


class Adapter(nn.Module):
    """A low-rank change beside a linear map, as LoRA has it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.down, self.up = nn.Linear(layer.in_features, 2), nn.Linear(2, layer.out_features)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


@pytest.mark.parametrize("before", [True, False])
def test_an_adapter_around_every_query_changes_the_answer(make, before):
    """As much as in the plain network, whether it comes before or after."""
    plain, fast = make(), make()
    unchanged = plain(*inputs(plain))
    if not before:
        accelerate(fast)
    for model in (plain, fast):
        torch.manual_seed(3)
        for block in (model.encoder, *model.processor.blocks, model.decoder):
            block.query = Adapter(block.query)
    if before:
        assert all(name.endswith("mlp") for name in accelerate(fast).replaced)
    torch.testing.assert_close(fast(*inputs(fast)), plain(*inputs(plain)), atol=1e-5, rtol=1e-5)
    assert (plain(*inputs(plain)) - unchanged).abs().max() > 1e-3


@pytest.mark.parametrize(
    "change",
    [
        lambda block: setattr(block.qk_norm, "query", nn.LayerNorm(8)),  # has a bias
        lambda block: setattr(block.qk_norm, "key", nn.LayerNorm(8, eps=0.1, bias=False)),
        lambda block: setattr(block, "projection", nn.Linear(16, 16, bias=False)),
        lambda block: setattr(block.norm, "forward", lambda x, cond: 2 * x),
        lambda block: setattr(block, "norm", type("Own", (ConditionalLayerNorm,), {})(16, 16)),
        lambda block: nn.utils.parametrizations.weight_norm(block.query),
    ],
)
def test_blocks_with_other_parts_run_as_they_are(make, change, ran):
    model = make()
    accelerate(model)
    block = model.processor.blocks[0]
    torch.manual_seed(5)
    change(block)
    nb, cond, x = model.processor.edges.neighbours, torch.randn(1, 16), torch.randn(1, 42, 16)
    block.mlp = nn.Identity()
    block.mlp.forward = lambda x, cond: x
    ours = block(x, cond, model.processor.edges(), nb)
    assert torch.equal(ours, type(block).forward(block, x, cond, model.processor.edges(), nb))
    assert ran == []


def test_other_precisions_run_as_they_are(make, ran):
    model = make()
    accelerate(model)
    with torch.autocast("cpu", torch.bfloat16):
        model(*inputs(model))
    double = copy.deepcopy(model).double()
    data = torch.randn(1, 42, 16, dtype=torch.float64)
    edges = double.processor.edges
    double.processor.blocks[0](data, torch.randn(1, 16, dtype=torch.float64), edges(), edges.neighbours)
    assert ran == []


@BOTH
def test_recomputed_blocks_give_the_same_gradients(make, processor):
    gradients = []
    for checkpointing in (False, True):
        model = make(processor=processor, gradient_checkpointing=checkpointing)
        accelerate(model)
        model(*inputs(model)).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a trait of glibc")
def test_freed_memory_is_kept():
    """Three arrays of 8 MB, made and forgotten: when they were there some times, no page of them is new."""
    code = """
import resource, torch
from diffusion_lab.acceleration.transformation import keep_freed_memory
keep_freed_memory()
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2**21) for _ in range(3)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) < 1000  # of 6144
