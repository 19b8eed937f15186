import numpy as np
import pytest

from diffusion_lab.graphs.edges import cutoff_edges, edge_attributes, multi_scale_edges, nearest_edges
from diffusion_lab.graphs.sphere import to_unit_vectors


def on_equator(*longitudes):
    return to_unit_vectors(np.zeros(len(longitudes)), np.array(longitudes, float))


def test_cutoff_joins_what_is_near_and_the_rest_to_the_nearest():
    source, target = on_equator(0, 4, 6, 17, 50), on_equator(0, 10, 20)
    edges = cutoff_edges(source, target, np.deg2rad(6.5))
    # Sorted by target, then source; 50° is out of reach of all targets and goes to the one at 20°.
    np.testing.assert_array_equal(edges, [[0, 1, 2, 1, 2, 3, 4], [0, 0, 0, 1, 1, 2, 2]])


def test_nearest_joins_the_given_number_to_every_target():
    edges = nearest_edges(on_equator(0, 10, 20, 30), on_equator(1, 28), 2)
    np.testing.assert_array_equal(edges, [[0, 1, 2, 3], [0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"num_nearest must lie in 1…4, .* not 5; raise refinement"):
        nearest_edges(on_equator(0, 10, 20, 30), on_equator(1), 5)


def test_merged_levels_run_both_ways_without_repeats_or_dropped_nodes():
    levels = [np.array([[0, 1], [0, 3]]), np.array([[0, 1], [1, 2], [2, 3]])]
    edges = multi_scale_edges(levels, np.array([True, True, False, True]))
    # Node 3 is number 2 among the kept ones.
    np.testing.assert_array_equal(edges, [[1, 2, 0, 0], [0, 0, 1, 2]])


def test_length_and_direction_of_known_edges():
    source, target = np.array([[0.0, 30.0], [10.0, 0.0]]), np.array([[0.0, 0.0]])
    attributes = edge_attributes(source, target, np.array([[0, 1], [0, 0]]))
    np.testing.assert_allclose(attributes, [[1, 1, 0], [1 / 3, 0, 1]], atol=1e-12)
