import math

import pytest
import torch

from diffusion_lab.models.attention import Neighbours, full_attention, neighbour_attention

NUM_SOURCES, NUM_TARGETS, HEADS, CHANNELS, SAMPLES = 9, 12, 2, 5, 3


def plain_attention(query, key, value, edge, edge_index):
    """One node after another, as in Shi et al. 2021, Eq. 3-4; edge in the order of edge_index."""
    out = torch.zeros_like(query)
    for sample in range(query.shape[0]):
        for node in range(query.shape[1]):
            edges = [e for e in range(edge_index.shape[1]) if edge_index[1, e] == node]
            sources = edge_index[0, edges]
            keys, values = key[sample, sources] + edge[edges], value[sample, sources] + edge[edges]
            for head in range(query.shape[2]):
                logits = keys[:, head] @ query[sample, node, head] / math.sqrt(query.shape[3])
                out[sample, node, head] = torch.softmax(logits, 0) @ values[:, head]
    return out


@pytest.fixture
def edge_index():
    """Targets of in-degree 1 … 6 in no order; one pair is joined twice."""
    torch.manual_seed(3)
    degrees = [3, 1, 6, 2, 2, 5, 1, 4, 3, 3, 6, 2]
    pairs = [(int(s), t) for t, d in enumerate(degrees) for s in torch.randperm(NUM_SOURCES)[:d]]
    pairs.append(pairs[0])
    return torch.tensor(pairs).T[:, torch.randperm(len(pairs))]


@pytest.fixture
def tensors(edge_index):
    torch.manual_seed(4)
    sizes = [
        (SAMPLES, NUM_TARGETS, HEADS, CHANNELS),
        (SAMPLES, NUM_SOURCES, HEADS, CHANNELS),
        (SAMPLES, NUM_SOURCES, HEADS, CHANNELS),
        (edge_index.shape[1], HEADS, CHANNELS),
    ]
    return [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]


def attend(query, key, value, edge, edge_index):
    nb = Neighbours(edge_index, query.shape[1])
    return neighbour_attention(query, key, value, edge[nb.order], nb)


@pytest.mark.parametrize("size", [1.0, 100.0])  # 100: e^logit overflows as it is
def test_result_is_that_of_a_loop_over_nodes(edge_index, tensors, size):
    inputs = [size * tensors[0], *tensors[1:]]
    result, expected = (form(*inputs, edge_index) for form in (attend, plain_attention))
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def test_order_of_edges_does_not_matter(edge_index, tensors):
    query, key, value, edge = tensors
    order = torch.randperm(edge_index.shape[1])
    permuted = attend(query, key, value, edge[order], edge_index[:, order])
    torch.testing.assert_close(permuted, attend(*tensors, edge_index), rtol=1e-12, atol=1e-12)


def test_renumbering_the_targets_renumbers_the_result(edge_index, tensors):
    query, key, value, edge = tensors
    new = torch.randperm(NUM_TARGETS)
    renumbered = torch.stack([edge_index[0], new[edge_index[1]]])
    result = attend(query[:, new.argsort()], key, value, edge, renumbered)
    torch.testing.assert_close(result[:, new], attend(*tensors, edge_index), rtol=1e-12, atol=1e-12)


def test_a_single_neighbour_is_copied():
    edge_index = torch.tensor([[1, 0], [0, 1]])
    key = value = torch.randn(1, 2, 1, 3)
    edge = torch.randn(2, 1, 3)
    out = attend(torch.randn(1, 2, 1, 3), key, value, edge, edge_index)
    torch.testing.assert_close(out, value[:, [1, 0]] + edge)


def test_two_neighbours_by_hand():
    # Channel 1, q = 1, keys ln 3 and 0: weights 3/4 and 1/4 of values 8 and 4, edges 0.
    one = torch.ones(1, 1, 1, 1)
    key, value = torch.tensor([math.log(3.0), 0.0]), torch.tensor([8.0, 4.0])
    out = attend(
        one,
        key.view(1, 2, 1, 1),
        value.view(1, 2, 1, 1),
        torch.zeros(2, 1, 1),
        torch.tensor([[0, 1], [0, 0]]),
    )
    assert out.item() == pytest.approx(7.0)


def test_a_target_without_neighbours_receives_zeros():
    query, key, value = torch.randn(3, 1, 4, 1, 2).unbind(0)
    edge_index = torch.tensor([[0, 3, 1], [1, 1, 3]])  # targets 0 and 2 hear nobody
    out = attend(query, key, value, torch.zeros(3, 1, 2), edge_index)
    assert (out[:, [0, 2]] == 0).all()
    torch.testing.assert_close(out[:, 3], value[:, 1])


def test_nothing_of_the_edges_is_saved_in_checkpoints(edge_index):
    assert not Neighbours(edge_index, NUM_TARGETS).state_dict()


def test_full_attention_is_the_formula():
    """Softmax of the scaled products of queries and keys, as written out."""
    query, key, value = torch.randn(3, 2, 7, 3, 4, dtype=torch.float64)
    logits = torch.einsum("sqhc,skhc->shqk", query, key) / 2
    expected = torch.einsum("shqk,skhc->sqhc", logits.softmax(-1), value)
    torch.testing.assert_close(full_attention(query, key, value), expected, rtol=1e-12, atol=1e-12)


def test_equal_keys_average_the_values():
    query, value = torch.randn(1, 7, 2, 8), torch.randn(1, 7, 2, 8)
    out = full_attention(query, torch.ones(1, 7, 2, 8), value)
    torch.testing.assert_close(out, value.mean(1, keepdim=True).expand_as(out))
