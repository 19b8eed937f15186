import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from diffusion_lab.graphs import multi_scale
from diffusion_lab.plots import graph_on_globe


@pytest.fixture(scope="module")
def graph():
    latitudes = np.linspace(85, -85, 12)
    return multi_scale(
        *[a.ravel() for a in np.meshgrid(latitudes, np.arange(24) * 15.0, indexing="ij")], refinement=2
    )


def test_levels_have_their_own_lines_on_the_near_side(graph):
    ax = Figure().subplots()
    graph_on_globe(ax, graph, latitude=90.0, longitude=0.0)
    lines = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert len(lines) == 2  # levels 1 and 2
    # Seen from above the pole, whose neighbourhood maps onto itself by thirds of a turn.
    counts = [len(c.get_segments()) for c in lines]
    assert all(count % 3 == 0 for count in counts)
    assert 240 / 2 * 0.7 < counts[1] < 240 / 2
    assert max(np.abs(np.concatenate(c.get_segments())).max() for c in lines) <= 1.0


def test_nodes_lie_where_the_view_has_them(graph):
    ax = Figure().subplots()
    graph_on_globe(ax, graph, ("hidden", "to", "data"), latitude=0.0, longitude=30.0)
    data = next(c for c in ax.collections if isinstance(c, PathCollection) and c.get_label() == "data nodes")
    offsets = np.asarray(data.get_offsets())
    # 12 rows of the 11 meridians less than 90° away; those at exactly 90° are on the rim.
    inner = offsets[np.hypot(*offsets.T) < 1 - 1e-9]
    assert len(inner) == 12 * 11
    np.testing.assert_allclose(
        np.unique(offsets[:, 1].round(6)), np.sort(np.sin(np.deg2rad(np.linspace(85, -85, 12)))), atol=1e-5
    )


def test_unknown_edges_are_refused(graph):
    with pytest.raises(KeyError, match="has no edges"):
        graph_on_globe(Figure().subplots(), graph, ("data", "to", "data"))
