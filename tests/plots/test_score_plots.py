import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from diffusion_lab.plots import noise_schedule, rank_histogram, score_vs_lead, training_curves
from diffusion_lab.plots.style import pretty_units


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def scores():
    names = ["fair_crps", "rmse", "spread", "spread_skill", "bias", "persistence_mae", "persistence_rmse"]
    values = np.arange(len(names) * 3.0).reshape(len(names), 1, 3)
    return xr.Dataset(
        {name: (("variable", "lead_time"), value) for name, value in zip(names, values, strict=True)},
        coords={
            "variable": ["z500"],
            "units": ("variable", ["m2 s-2"]),
            "lead_time": np.array([24, 48, 72], "timedelta64[h]"),
        },
    )


def drawn(ax):
    return {line.get_label(): list(line.get_ydata()) for line in ax.lines}


def test_ranks_are_relative_to_a_flat_histogram(ax):
    rank_histogram(ax, [0.5, 0.25, 0.25])
    assert [bar.get_height() for bar in ax.patches] == [1.5, 0.75, 0.75]
    assert [bar.get_center()[0] for bar in ax.patches] == pytest.approx([1, 2, 3])
    assert ax.get_xlabel() == "rank of the truth among 2 members"


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("fair_crps", {"fair CRPS": [0, 1, 2], "persistence (MAE)": [15, 16, 17]}),
        ("rmse", {"RMSE of the mean": [3, 4, 5], "spread": [6, 7, 8], "persistence (RMSE)": [18, 19, 20]}),
        ("spread_skill", {"spread-skill ratio": [9, 10, 11]}),
    ],
)
def test_score_stands_beside_what_it_is_compared_with(ax, scores, score, expected):
    score_vs_lead(ax, scores, "z500", score)
    lines = {name: values for name, values in drawn(ax).items() if not name.startswith("_")}
    assert lines == expected
    assert list(ax.lines[0].get_xdata()) == [1, 2, 3]
    assert ax.get_ylabel() == ("z500 spread-skill ratio [–]" if score == "spread_skill" else "z500 [m² s⁻²]")


def test_unknown_score_is_refused(ax, scores):
    with pytest.raises(KeyError, match="unknown score 'crps'; choose one of"):
        score_vs_lead(ax, scores, "z500", "crps")


def test_training_curves_leave_out_what_was_not_logged(ax):
    training_curves(ax, [0, 10, 20], [3.0, np.nan, 1.0], {"0.02–1": [4.0, 2.0, np.nan]})
    assert drawn(ax) == {"0.02–1": [4.0, 2.0], "all levels": [3.0, 1.0]}
    assert list(ax.lines[1].get_xdata()) == [0, 20]
    assert ax.get_yscale() == "log"


def test_schedule_ends_at_the_foot_of_the_axis(ax):
    noise_schedule(ax, {"karras": [90.0, 3.0, 0.3, 0.0]}, churn=(0.75, 60.0))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [90, 3, 0.3, 0.1])
    assert ax.get_ylim() == pytest.approx((0.1, 180))
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((0.75, 60.0))


@pytest.mark.parametrize(
    ("units", "expected"), [("m2 s-2", "m² s⁻²"), ("K", "K"), ("kg kg-1", "kg kg⁻¹"), ("1", "–")]
)
def test_units_are_set_as_in_print(units, expected):
    assert pretty_units(units) == expected
