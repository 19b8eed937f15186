import pytest
import torch

from diffusion_lab.acceleration.attention import full_attention, neighbour_attention
from diffusion_lab.models import attention
from diffusion_lab.models.attention import Neighbours

NUM_SOURCES, NUM_TARGETS, HEADS, CHANNELS, SAMPLES = 9, 12, 2, 5, 3
SIZES = pytest.mark.parametrize("size", [1.0, 100.0])  # 100: the exponential of a logit overflows as it is


@pytest.fixture
def neighbours():
    """Targets of in-degree 0 … 6 in no order."""
    torch.manual_seed(3)
    degrees = [3, 1, 6, 2, 2, 5, 1, 4, 0, 3, 6, 2]
    pairs = [(int(s), t) for t, d in enumerate(degrees) for s in torch.randperm(NUM_SOURCES)[:d]]
    return Neighbours(torch.tensor(pairs).T[:, torch.randperm(len(pairs))], NUM_TARGETS)


@pytest.fixture
def tensors(neighbours):
    torch.manual_seed(4)
    nodes = [(SAMPLES, n, HEADS * CHANNELS) for n in (NUM_TARGETS, NUM_SOURCES, NUM_SOURCES)]
    return [torch.randn(size) for size in (*nodes, (len(neighbours.source), HEADS * CHANNELS))]


@SIZES
def test_over_neighbours_it_is_the_plain_form(neighbours, tensors, assert_agree, size):
    def fast(*tensors):
        return neighbour_attention(*tensors, neighbours, HEADS)

    def plain(*tensors):
        by_head = (t.unflatten(-1, (HEADS, CHANNELS)) for t in tensors)
        return attention.neighbour_attention(*by_head, neighbours).flatten(-2)

    inputs = [size * tensors[0], *tensors[1:]]
    assert_agree(fast, plain, inputs, dtype=torch.float32, accuracy=3e-6 * size)


def test_threads_do_not_change_a_bit(neighbours, tensors, monkeypatch):
    """Targets, and heads on the way back, are dealt to threads: sums keep their order."""
    outs = []
    for count in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        ours = [t.detach().clone().requires_grad_() for t in tensors]
        out = neighbour_attention(*ours, neighbours, HEADS)
        outs.append([out, *torch.autograd.grad(out.square().sum(), ours)])
    assert all(torch.equal(one, three) for one, three in zip(*outs, strict=True))


@pytest.mark.parametrize("channels", [5, 8, 12])
@SIZES
def test_full_attention_is_the_plain_form(assert_agree, size, channels):
    qkv = torch.randn(3, 2, 45, 4, channels)
    qkv[:2] *= size**0.5
    assert_agree(full_attention, attention.full_attention, qkv, dtype=torch.float32, accuracy=3e-6 * size)
