import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from diffusion_lab.plots import (
    noise_schedule,
    rank_histogram,
    reliability,
    roc,
    score_vs_lead,
    scorecard,
    spectra,
    spectra_ratio,
    spread_skill,
    training_curves,
)
from diffusion_lab.stores.units import pretty_units


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
        ("rmse", {"RMSE of the mean": [3, 4, 5], "spread": [6, 7, 8], "persistence": [18, 19, 20]}),
        ("spread_skill", {"spread-skill ratio": [9, 10, 11]}),
    ],
)
def test_score_stands_beside_what_it_is_compared_with(ax, scores, score, expected):
    score_vs_lead(ax, scores, "z500", score)
    lines = {name: values for name, values in drawn(ax).items() if not name.startswith("_")}
    assert lines == expected
    assert list(ax.lines[0].get_xdata()) == [1, 2, 3]
    assert ax.get_ylabel() == ("z500 spread-skill ratio [–]" if score == "spread_skill" else "z500 [m² s⁻²]")


def test_intervals_are_bands_and_bars(ax, scores):
    bounds = np.array([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])
    scores = scores.assign(fair_crps_interval=(("bound", "variable", "lead_time"), bounds))
    score_vs_lead(ax, scores, "z500")
    corners = {tuple(corner) for corner in ax.collections[0].get_paths()[0].vertices}
    assert {(1, 1), (2, 2), (3, 3), (1, 4), (2, 5), (3, 6)} <= corners
    other = Figure().subplots()
    rank_histogram(other, [0.5, 0.25, 0.25], [[0.4, 0.2, 0.2], [0.6, 0.3, 0.3]])
    bars = [segment[:, 1].tolist() for segment in other.collections[0].get_segments()]
    np.testing.assert_allclose(bars, [[1.2, 1.8], [0.6, 0.9], [0.6, 0.9]])


def test_baselines_that_are_ensembles_stand_beside_by_their_crps(ax, scores):
    twin = {"weather_of_1990_fair_crps": scores["fair_crps"] + 7, "weather_of_1990_rmse": scores["rmse"]}
    score_vs_lead(ax, scores.assign(twin), "z500")
    assert drawn(ax)["weather of 1990"] == [7, 8, 9]


def test_spread_skill_of_all_variables(ax, scores):
    spread_skill(ax, scores)
    assert drawn(ax)["z500"] == [9, 10, 11]
    assert ax.get_ylabel() == "spread-skill ratio [–]"


@pytest.fixture
def powers():
    values = np.array([100.0, 8.0, 4.0, 2.0]).reshape(1, 1, 4)
    names = {"power": 1.0, "mean_power": 0.5, "truth_power": 2.0, "power_ratio": 0.1}
    fields = {
        name: (("variable", "lead_time", "wavenumber"), factor * values) for name, factor in names.items()
    }
    bounds = np.stack([0.9 * values, 1.1 * values])
    return xr.Dataset(
        fields | {"power_interval": (("bound", "variable", "lead_time", "wavenumber"), bounds)},
        coords={
            "variable": ["z500"],
            "units": ("variable", ["m2 s-2"]),
            "lead_time": [np.timedelta64(1, "D")],
            "wavenumber": np.arange(4),
        },
    )


def test_spectra_start_at_wavenumber_one(ax, powers):
    """The power at 0 is the square of the mean, which would dwarf the rest."""
    spectra(ax, powers, "z500", np.timedelta64(1, "D"))
    assert drawn(ax) == {"truth": [16, 8, 4], "members": [8, 4, 2], "ensemble mean": [4, 2, 1]}
    assert list(ax.lines[0].get_xdata()) == [1, 2, 3]
    assert ax.get_ylabel() == "power of z500 [m⁴ s⁻⁴]"
    other = Figure().subplots()
    spectra_ratio(other, powers, np.timedelta64(1, "D"))
    np.testing.assert_allclose(drawn(other)["z500"], [0.8, 0.4, 0.2])


def test_reliability_and_roc_of_a_known_table(ax):
    # Two members: half of the time none sees the event, which then happens in 1 of 10 cases; and so on.
    share = xr.DataArray([0.5, 0.3, 0.2], dims="count")
    happened = xr.DataArray([0.05, 0.15, 0.2], dims="count")
    reliability(ax, share, happened, "warm")
    assert list(ax.lines[-1].get_xdata()) == [0, 0.5, 1]
    np.testing.assert_allclose(drawn(ax)["warm"], [0.1, 0.5, 1.0])
    sizes = ax.collections[0].get_sizes()
    np.testing.assert_allclose(np.diff(sizes) / np.diff(share), np.full(2, 250))
    other = Figure().subplots()
    roc(other, share, happened, "warm")
    np.testing.assert_allclose(drawn(other)["warm"], [1, 0.35 / 0.4, 0.2 / 0.4, 0])
    np.testing.assert_allclose(other.lines[-1].get_xdata(), [1, 0.15 / 0.6, 0, 0], atol=1e-12)


def test_the_scorecard_prints_skill_and_marks_what_is_clear(ax, scores):
    pair = ("variable", "lead_time")
    skill = scores[["fair_crps"]].assign(
        deterministic_crpss=(pair, [[0.25, -0.1, 0.02]]),
        deterministic_crpss_interval=(("bound", *pair), [[[0.2, -0.2, -0.1]], [[0.3, -0.05, 0.1]]]),
    )
    scorecard(ax, skill, "deterministic")
    assert [(text.get_text(), text.get_weight()) for text in ax.texts] == [
        ("+25", "bold"),
        ("−10", "bold"),
        ("+2", "normal"),
    ]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["24 h", "2 d", "3 d"]
    assert ax.get_title() == "CRPS skill against deterministic [%]"


def test_unknown_score_is_refused(ax, scores):
    with pytest.raises(KeyError, match="unknown score 'crps'; choose one of"):
        score_vs_lead(ax, scores, "z500", "crps")


def test_training_curves_leave_out_what_was_not_logged(ax):
    training_curves(ax, [0, 10, 20], [3.0, np.nan, 1.0], {"0.02–1": [4.0, 2.0, np.nan]})
    assert drawn(ax) == {"0.02–1": [4.0, 2.0], "all levels": [3.0, 1.0]}
    assert list(ax.lines[1].get_xdata()) == [0, 20]
    assert ax.get_yscale() == "log"
    assert {"1", "2", "3"} <= {label.get_text() for label in ax.get_yticklabels()}  # no powers of ten


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
