import pytest
import torch
from torch.nn import functional

from diffusion_lab.models import ConditionalLayerNorm
from diffusion_lab.models.normalization import heads_of


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


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_conditional_norm_is_the_formula(assert_agree, dtype, accuracy):
    """Result and gradients, over several blocks of nodes; in single precision by our loop."""

    def plain(x, cond, norm):
        centred = x - x.mean(-1, keepdim=True)
        normalised = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return normalised * (1 + norm.scale(cond))[:, None] + norm.bias(cond)[:, None]

    norm = ConditionalLayerNorm(6, 3, zero_init=False)
    inputs = torch.randn(2, 300, 6), torch.randn(2, 3)
    assert_agree(lambda x, cond, norm: norm(x, cond), plain, inputs, [norm], dtype=dtype, accuracy=accuracy)


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_parts_are_layer_normed_by_head(assert_agree, dtype, accuracy):
    """Result and gradients, of queries and keys of 3 heads of 4 channels; values are left as they are."""
    heads = (3, 4)

    def fast(x, gains, linear):
        return torch.stack(heads_of(x, linear, heads, *gains))

    def plain(x, gains, linear):
        *parts, value = linear(x).unflatten(-1, (3, *heads)).unbind(2)
        normed = [functional.layer_norm(part, (4,), gain) for part, gain in zip(parts, gains, strict=True)]
        return torch.stack([*normed, value])

    inputs, linear = (torch.randn(2, 150, 6), torch.randn(2, 4)), torch.nn.Linear(6, 36)
    assert_agree(fast, plain, inputs, [linear], dtype=dtype, accuracy=accuracy, gradients=100)


def test_parts_in_half_precision():
    x, linear, gain = torch.randn(2, 5, 6), torch.nn.Linear(6, 24), torch.randn(4)
    single = torch.stack(heads_of(x, linear, (3, 4), gain))
    half = torch.stack(heads_of(x.bfloat16(), linear.bfloat16(), (3, 4), gain))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), single, atol=0.1, rtol=0.05)
