import numpy as np
import pytest

from diffusion_lab.graphs.icosahedron import mesh_spacing, refined_icosahedron
from diffusion_lab.graphs.sphere import great_circle_distance


@pytest.mark.parametrize("refinement", [0, 1, 2, 3, 4])
def test_counts_obey_eulers_formula(refinement):
    nodes, levels = refined_icosahedron(refinement)
    assert len(nodes) == 10 * 4**refinement + 2
    assert [len(edges) for edges in levels] == [30 * 4**level for level in range(refinement + 1)]
    # Twelve nodes keep five neighbours, all others have six.
    degree = np.bincount(levels[-1].ravel())
    assert sorted(set(degree)) == ([5] if refinement == 0 else [5, 6])
    assert np.sum(degree == 5) == 12


def test_edges_of_the_icosahedron_span_63_43_degrees():
    nodes, (edges,) = refined_icosahedron(0)
    length = great_circle_distance(nodes[edges[:, 0]], nodes[edges[:, 1]])
    np.testing.assert_allclose(length, np.arctan(2.0), atol=1e-12)
    assert np.rad2deg(mesh_spacing(nodes)) == pytest.approx(63.4349488)


def test_first_split_halves_the_edges_and_joins_midpoints_36_degrees_apart():
    nodes, (_, edges) = refined_icosahedron(1)
    length = np.rad2deg(great_circle_distance(nodes[edges[:, 0]], nodes[edges[:, 1]]))
    # 42 nodes of the icosahedron and the icosidodecahedron: 60 half edges, and 60 edges of 36°.
    np.testing.assert_allclose(np.sort(length), np.repeat([63.4349488229 / 2, 36.0], 60), atol=1e-9)


def test_coarse_nodes_come_first_and_nodes_are_distinct():
    coarse, _ = refined_icosahedron(2)
    fine, _ = refined_icosahedron(3)
    np.testing.assert_array_equal(fine[: len(coarse)], coarse)
    np.testing.assert_allclose(np.linalg.norm(fine, axis=1), 1.0)
    assert len(np.unique(fine.round(9), axis=0)) == 642


@pytest.mark.parametrize("refinement", [0, 1, 2, 3, 4, 5])
def test_poles_are_face_centres_far_from_every_node(refinement):
    nodes, _ = refined_icosahedron(refinement)
    distance = great_circle_distance(nodes, np.array([0.0, 0.0, 1.0]))
    nearest = np.sort(distance)
    np.testing.assert_allclose(nearest[:3], nearest[0])
    assert nearest[0] > 0.5 * mesh_spacing(nodes)


def test_negative_refinement_is_refused():
    with pytest.raises(ValueError, match="refinement must be 0 or more, not -1"):
        refined_icosahedron(-1)
