import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from diffusion_lab.plots import optimisation_history, paired_differences, parameter_importance, pareto_front


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def trials():
    rows = [
        (0, "complete", 0.30, 9, "heun"),
        (1, "stopped", 9.0, 5, "euler"),
        (2, "complete", 0.27, 12, "deis"),
    ]
    rows += [(3, "complete", 0.28, 6, "deis"), (4, "complete", 0.26, 18, "unipc")]
    return pd.DataFrame(rows, columns=["trial", "state", "score", "calls", "sampler"])


def lines(ax):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def test_history_shows_the_best_so_far(ax, trials):
    optimisation_history(ax, trials)
    assert lines(ax)["best so far"] == ([1, 3, 4, 5], [0.30, 0.27, 0.27, 0.26])
    assert lines(ax)["stopped early"] == ([2], [9.0])
    top = ax.get_ylim()[1]
    assert top < 0.4  # the hopeless trial does not flatten the others
    assert lines(ax)["above"] == ([2], [top])


def test_front_names_its_samplers(ax, trials):
    front = trials.iloc[[3, 2, 4]]
    pareto_front(ax, trials, front)
    assert lines(ax)["Pareto front"] == ([6, 12, 18], [0.28, 0.27, 0.26])
    assert lines(ax)["complete trials"][0] == [9, 12, 6, 18]
    assert [text.get_text() for text in ax.texts] == ["deis", "deis", "unipc"]


def test_the_most_important_parameter_is_on_top(ax):
    parameter_importance(ax, {"rho": 0.2, "network_calls": 0.7, "sampler": 0.1})
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["sampler", "rho", "network calls"]
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.2, 0.7]


def test_nothing_known_of_importance_is_said(ax):
    parameter_importance(ax, {})
    assert "too few" in ax.texts[0].get_text()


def test_differences_are_in_per_cent_of_the_reference(ax):
    paired_differences(ax, [8, 18], [0.01, -0.02], [(0.0, 0.02), (-0.03, -0.01)], 0.5, 99)
    assert lines(ax)["the answer"] == ([18], [-4])
    points = ax.containers[0]
    np.testing.assert_allclose(points[0].get_ydata(), [2, -4])
    np.testing.assert_allclose([s[:, 1] for s in points[2][0].get_segments()], [[0, 4], [-6, -2]])
    assert ax.get_ylabel().endswith("[%]")
    assert "99 calls" in ax.get_legend().get_texts()[0].get_text()


def test_the_answer_is_what_was_searched_not_what_did_best(ax):
    paired_differences(ax, [8, 18], [-0.02, 0.01], [(-0.03, -0.01), (0.0, 0.02)], 0.5, 99)
    assert lines(ax)["the answer"] == ([18], [2])
