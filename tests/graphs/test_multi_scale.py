import json

import numpy as np
import pytest
import torch

from diffusion_lab.graphs import build_graph, multi_scale
from diffusion_lab.graphs.edges import edge_attributes
from diffusion_lab.graphs.icosahedron import mesh_spacing, refined_icosahedron
from diffusion_lab.graphs.sphere import great_circle_distance, to_unit_vectors

ENCODER, PROCESSOR, DECODER = ("data", "to", "hidden"), ("hidden", "to", "hidden"), ("hidden", "to", "data")


def gaussian_grid(descending=True):
    latitudes = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))
    latitudes = latitudes[::-1] if descending else latitudes
    return [axis.ravel() for axis in np.meshgrid(latitudes, np.arange(64) * 360 / 64, indexing="ij")]


def europe():
    axes = np.linspace(70, 35, 11), np.linspace(-10, 40, 13)
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


@pytest.fixture(scope="module")
def graph():
    return multi_scale(*gaussian_grid())


def distances(graph, edge):
    """Great-circle length in radians of each edge, from the node positions."""
    ends = [to_unit_vectors(*np.rad2deg(graph[node].x.double().numpy()).T) for node in (edge[0], edge[2])]
    source, target = graph[edge].edge_index.numpy()
    return great_circle_distance(ends[0][source], ends[1][target])


def test_counts_on_a_64_by_32_grid(graph):
    assert (graph["data"].num_nodes, graph["hidden"].num_nodes) == (2048, 642)
    assert graph[PROCESSOR].num_edges == 240 + 960 + 3840 == 5040
    assert graph[DECODER].num_edges == 6144
    # By areas alone 642 caps of 5.453° (0.6 · 9.089°) would hold 2048 · 642 · (1 - cos 5.453°)/2 = 2975.
    assert graph[ENCODER].num_edges == pytest.approx(2975, rel=0.05)


def test_edges_are_sorted_distinct_and_in_range(graph):
    for source, _, target in graph.edge_types:
        edges = graph[source, "to", target].edge_index
        rank = edges[1] * graph[source].num_nodes + edges[0]
        assert torch.all(rank[1:] > rank[:-1])
        assert edges[0].max() < graph[source].num_nodes
        assert edges[1].max() < graph[target].num_nodes


@pytest.mark.parametrize(("cutoff_factor", "out_of_reach"), [(0.6, 0), (0.4, 500)])
def test_encoder_reaches_by_the_mesh_spacing_and_leaves_no_data_node_out(cutoff_factor, out_of_reach):
    graph = multi_scale(*gaussian_grid(), cutoff_factor=cutoff_factor)
    source, target = graph[ENCODER].edge_index
    assert len(source.unique()) == 2048
    radius = cutoff_factor * mesh_spacing(refined_icosahedron(3)[0])
    data, hidden = (to_unit_vectors(*np.rad2deg(graph[n].x.double().numpy()).T) for n in ("data", "hidden"))
    apart = great_circle_distance(data[:, None], hidden[None])
    joined = np.zeros(apart.shape, bool)
    joined[source, target] = True
    alone = apart.min(axis=1) > radius
    assert alone.sum() >= out_of_reach
    np.testing.assert_array_equal(joined[~alone], apart[~alone] <= radius)
    np.testing.assert_array_equal(joined[alone].argmax(axis=1), apart[alone].argmin(axis=1))


def test_decoder_takes_the_three_nearest(graph):
    data, hidden = (to_unit_vectors(*np.rad2deg(graph[n].x.double().numpy()).T) for n in ("data", "hidden"))
    apart = great_circle_distance(data[:, None], hidden[None])
    sources = graph[DECODER].edge_index[0].reshape(2048, 3).numpy()
    np.testing.assert_array_equal(sources, np.sort(np.argsort(apart, axis=1)[:, :3], axis=1))


def test_attributes(graph):
    assert graph["data"].area_weight.double().sum().item() == pytest.approx(1.0, abs=1e-6)
    latitude, longitude = graph["hidden"].x.T
    expected = torch.stack([latitude.sin(), latitude.cos(), longitude.sin(), longitude.cos()], dim=1)
    torch.testing.assert_close(graph["hidden"].node_attr, expected)
    for edge in graph.edge_types:
        attributes = graph[edge].edge_attr
        assert attributes.dtype == torch.float32
        assert attributes[:, 0].max() == 1.0
        np.testing.assert_allclose(
            attributes[:, 0], distances(graph, edge) / distances(graph, edge).max(), atol=1e-5
        )
        torch.testing.assert_close(attributes[:, 1:].norm(dim=1), torch.ones(len(attributes)))


def test_rotating_the_whole_graph_about_the_poles_changes_no_edge_attribute(graph):
    turn = np.array([0.0, 123.456])
    for edge in graph.edge_types:
        source, target = (np.rad2deg(graph[node].x.double().numpy()) for node in (edge[0], edge[2]))
        edges = graph[edge].edge_index.numpy()
        np.testing.assert_allclose(
            edge_attributes(source + turn, target + turn, edges),
            edge_attributes(source, target, edges),
            atol=1e-9,
        )


def test_symmetry_of_the_mesh_is_kept_by_the_processor_edges(graph):
    """The mesh maps onto itself by a third of a turn about the poles; so do its edges' attributes."""
    attributes = graph[PROCESSOR].edge_attr.double().numpy()
    longitude = np.rad2deg(graph["hidden"].x[:, 1].double().numpy())[graph[PROCESSOR].edge_index[1].numpy()]
    latitude = np.rad2deg(graph["hidden"].x[:, 0].double().numpy())[graph[PROCESSOR].edge_index[1].numpy()]

    def table(shift):
        rows = np.column_stack([latitude, np.round((longitude + shift - 11.3719) % 120, 3) % 120, attributes])
        return rows[np.lexsort(rows.round(3).T)]

    np.testing.assert_allclose(table(0.0)[::3], table(120.0)[1::3], atol=2e-3)


def test_same_arguments_give_the_same_bits(graph):
    again = build_graph(json.loads(json.dumps(graph.recipe)), *gaussian_grid())
    for store, other in zip(graph.stores, again.stores, strict=True):
        for key, value in store.items():
            assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]


def test_order_of_the_grid_only_renumbers_the_data_nodes(graph):
    other = multi_scale(*gaussian_grid(descending=False))
    number = (
        np.arange(2048).reshape(32, 64)[::-1].ravel()
    )  # of an ascending grid's node in the descending one
    torch.testing.assert_close(other["data"].x, graph["data"].x[number])
    torch.testing.assert_close(other["data"].area_weight, graph["data"].area_weight[number])
    assert torch.equal(other[PROCESSOR].edge_attr, graph[PROCESSOR].edge_attr)
    for edge, row in [(ENCODER, 0), (DECODER, 1)]:
        edges = other[edge].edge_index.numpy().copy()
        edges[row] = number[edges[row]]
        order = np.lexsort(edges)
        np.testing.assert_array_equal(edges[:, order], graph[edge].edge_index)
        torch.testing.assert_close(other[edge].edge_attr[order], graph[edge].edge_attr)


@pytest.mark.parametrize("refinement", [3, 4, 5])
def test_mesh_of_a_limited_area_stays_in_it(refinement):
    graph = multi_scale(*europe(), refinement=refinement)
    mesh, _ = refined_icosahedron(refinement)
    # The corners are at most 3.5° · √2 apart from the next node.
    margin = np.rad2deg(max(mesh_spacing(mesh), np.deg2rad(4.2)))
    latitude, longitude = np.rad2deg(graph["hidden"].x.double().numpy()).T
    assert latitude.min() > 35 - margin
    assert latitude.max() < 70 + margin
    apart = great_circle_distance(
        to_unit_vectors(latitude, longitude)[:, None], to_unit_vectors(*europe())[None]
    ).min(axis=1)
    assert np.rad2deg(apart.max()) < margin
    # All hidden nodes above the area itself are there.
    mesh_latitude, mesh_longitude = (
        np.rad2deg(np.arcsin(mesh[:, 2])),
        np.rad2deg(np.arctan2(mesh[:, 1], mesh[:, 0])),
    )
    inside = (np.abs(mesh_latitude - 52.5) < 17.5) & (np.abs(mesh_longitude - 15) < 25)
    assert (
        np.sum((np.abs(latitude - 52.5) < 17.5) & (np.abs((longitude + 180) % 360 - 195) < 25))
        == inside.sum()
    )

    joined = torch.cat(
        [graph[ENCODER].edge_index[1], graph[PROCESSOR].edge_index[1], graph[DECODER].edge_index[0]]
    )
    assert len(joined.unique()) == graph["hidden"].num_nodes
    assert len(graph[ENCODER].edge_index[0].unique()) == 143
    assert graph["data"].area_weight.sum().item() == pytest.approx(1.0, abs=1e-6)


def test_too_few_hidden_nodes_ask_for_a_finer_mesh():
    with pytest.raises(ValueError, match=r"num_nearest must lie in 1…\d+, .* not 50; raise refinement"):
        multi_scale(*europe(), num_nearest=50)


@pytest.mark.parametrize(
    ("latitudes", "longitudes", "message"),
    [
        (np.zeros((3, 4)), np.zeros((3, 4)), "1-d and of one length"),
        (np.zeros(3), np.zeros(4), "1-d and of one length"),
        ([0, np.nan], [0, 0], "finite"),
        ([0, 91], [0, 0], "-90…90 degrees, found 91"),
    ],
)
def test_bad_coordinates_are_refused(latitudes, longitudes, message):
    with pytest.raises(ValueError, match=message):
        multi_scale(latitudes, longitudes)


def test_unknown_graphs_and_arguments_are_refused():
    with pytest.raises(KeyError, match=r"unknown graph 'stretched'.*multi_scale"):
        build_graph({"graph": "stretched"}, *europe())
    with pytest.raises(TypeError, match="refinment"):
        build_graph({"graph": "multi_scale", "refinment": 3}, *europe())
