import pytest
import torch
from torch.nn import functional

from diffusion_lab.models import ConditionalLayerNorm
from diffusion_lab.models.normalization import centred, head_norm


def test_by_hand():
    norm = ConditionalLayerNorm(2, 1)
    with torch.no_grad():
        norm.scale.weight.copy_(torch.tensor([[0.5], [-2.0]]))
        norm.scale.bias.copy_(torch.tensor([0.25, 0.0]))
        norm.bias.weight.copy_(torch.tensor([[1.0], [3.0]]))
        norm.bias.bias.copy_(torch.tensor([0.0, 10.0]))
    # (1, 5) has mean 3 and standard deviation 2: it is normalised to (-1, 1). At cond = 2 the factors are
    # 1 + (1.25, -4) and the biases (2, 16); at cond = 0 they are 1 + (0.25, 0) and (0, 10).
    x, cond = torch.tensor([[[1.0, 5.0]], [[1.0, 5.0]]]), torch.tensor([[2.0], [0.0]])
    expected = torch.tensor([[[-2.25 + 2, -3 + 16.0]], [[-1.25, 1 + 10.0]]])
    torch.testing.assert_close(norm(x, cond), expected, atol=1e-5, rtol=0)


def test_starts_as_a_plain_layer_norm_at_every_condition():
    x, cond = torch.randn(3, 7, 16), 100 * torch.randn(3, 5)
    plain = torch.nn.LayerNorm(16, elementwise_affine=False)
    torch.testing.assert_close(ConditionalLayerNorm(16, 5)(x, cond), plain(x))
    assert not torch.allclose(ConditionalLayerNorm(16, 5, zero_init=False)(x, cond), plain(x), atol=0.1)


def test_gradients_reach_a_layer_that_starts_at_zero():
    norm = ConditionalLayerNorm(4, 2)
    # d/d(scale.weight) of sum(g · LN(x)·(1 + W c)) = Σ_nodes g·LN(x) cᵀ, also at W = 0.
    x, cond, g = torch.randn(1, 3, 4), torch.tensor([[1.0, -2.0]]), torch.randn(1, 3, 4)
    (norm(x, cond) * g).sum().backward()
    normalised = torch.nn.functional.layer_norm(x, (4,))
    expected = (g * normalised).sum((0, 1))[:, None] * cond
    torch.testing.assert_close(norm.scale.weight.grad, expected)
    torch.testing.assert_close(norm.bias.weight.grad, g.sum((0, 1))[:, None] * cond)


def test_each_sample_has_its_own_condition():
    norm = ConditionalLayerNorm(4, 2, zero_init=False)
    x, cond = torch.randn(2, 3, 4), torch.randn(2, 2)
    together = norm(x, cond)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], norm(x[i : i + 1], cond[i : i + 1]))
    with pytest.raises(RuntimeError):
        norm(x, torch.randn(5, 2))


def test_norm_of_heads_after_a_centred_map_is_the_layer_norm():
    """Result and gradients, of queries and keys of 3 heads of 4 channels; values are left as they are."""
    torch.manual_seed(5)
    heads, linear = (3, 4), torch.nn.Linear(6, 36).double()
    x, gain = torch.randn(2, 7, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    inputs = [x.requires_grad_(), gain.requires_grad_(), *linear.parameters()]

    def fast():
        query, key, value = (
            functional.linear(x, *centred(linear, 2, heads)).unflatten(-1, (3, *heads)).unbind(2)
        )
        return torch.stack([head_norm(query, gain), head_norm(key, gain), value])

    def plain():
        query, key, value = linear(x).unflatten(-1, (3, *heads)).unbind(2)
        return torch.stack([*(functional.layer_norm(t, (4,), gain) for t in (query, key)), value])

    outs = [fast(), plain()]
    torch.testing.assert_close(*outs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(outs[0])
    gradients = [torch.autograd.grad((out * direction).sum(), inputs) for out in outs]
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


def test_norm_of_heads_is_torchs_own():
    """Also where x has a mean, and in half precision."""
    x, gain = torch.randn(2, 5, 3, 4), torch.randn(4)
    plain = functional.rms_norm(x, (4,), gain, 1e-5)
    torch.testing.assert_close(head_norm(x, gain), plain)
    half = head_norm(x.bfloat16(), gain)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, atol=0.05, rtol=0.05)
