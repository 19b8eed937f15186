import pytest
import torch

from diffusion_lab.models import ConditionalLayerNorm
from diffusion_lab.models.normalization import QKNorm


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


def test_gradients_are_those_of_the_formula():
    norm = ConditionalLayerNorm(6, 3, zero_init=False).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    cond = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x, cond))


def test_queries_and_keys_have_a_norm_each(perturb):
    """Of unit mean square over the channels of a head, times its own gain; types stay under autocast."""
    norm, query, key = perturb(QKNorm(4)), torch.randn(2, 5, 3, 4), torch.randn(2, 6, 3, 4)
    for x, out, gain in zip(
        (query, key), norm(query, key), (norm.query.weight, norm.key.weight), strict=True
    ):
        centred = x - x.mean(-1, keepdim=True)
        torch.testing.assert_close(
            out, centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain
        )
    assert not torch.equal(norm.query.weight, norm.key.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert {out.dtype for out in norm(query.bfloat16(), key.bfloat16())} == {torch.bfloat16}
