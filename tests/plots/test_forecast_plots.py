import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from diffusion_lab.plots import forecast_panel, nearest_cell, plume

HOUR = np.timedelta64(3600, "s")
START = np.datetime64("2025-01-01T00", "s")


@pytest.fixture
def forecast():
    latitudes, longitudes = (
        a.ravel() for a in np.meshgrid([60.0, 0.0, -60.0], np.arange(0, 360, 20.0), indexing="ij")
    )
    members = np.random.default_rng(0).normal(280, 5, size=(4, 5, 54))
    lead = 12 * HOUR * np.arange(1, 5)
    return xr.Dataset(
        {
            "t850": (
                ("time", "ensemble", "cell"),
                members,
                {"units": "K", "long_name": "temperature at 850 hPa"},
            )
        },
        coords={
            "time": START + lead,
            "lead_time": ("time", lead),
            "forecast_reference_time": START,
            "latitude": ("cell", latitudes),
            "longitude": ("cell", longitudes),
        },
        attrs={"field_shape": [3, 18]},
    )


@pytest.fixture
def truth(forecast):
    return forecast.isel(ensemble=0) + 1.0


def test_plume_draws_members_mean_and_truth_in_days(forecast, truth):
    ax = Figure().subplots()
    plume(ax, forecast["t850"].isel(cell=3), truth["t850"].isel(cell=3))
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    members = forecast["t850"].isel(cell=3).values
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines[:5]], members.T)
    np.testing.assert_allclose(lines["mean"], members.mean(axis=1))
    np.testing.assert_allclose(lines["truth"], members[:, 0] + 1)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.5, 1.0, 1.5, 2.0])
    assert ax.get_xlabel() == "lead time [days]"
    assert ax.get_ylabel() == "t850 [K]"


def test_plume_of_all_cells_is_refused(forecast):
    with pytest.raises(ValueError, match="select a start and a cell"):
        plume(Figure().subplots(), forecast["t850"])


def test_nearest_cell_looks_over_the_date_line(forecast):
    assert nearest_cell(forecast, 55.0, -25.0) == 17  # 60°N 340°E
    assert nearest_cell(forecast, 1.0, 359.0) == 18  # the equator at 0°E


def test_panel_shows_truth_members_mean_error_and_spread(forecast, truth):
    figure = forecast_panel(forecast, truth, "t850", lead_time=24 * HOUR, member=4)
    maps = {ax.get_title(): ax.collections[0] for ax in figure.axes if ax.get_title()}
    members = forecast["t850"].values[1]
    expected = {
        "truth": members[0] + 1,
        "ensemble mean": members.mean(axis=0),
        "mean − truth": members.mean(axis=0) - members[0] - 1,
        "member 4": members[4],
        "member 0": members[0],
        "spread": members.std(axis=0, ddof=1),
    }
    assert list(maps) == list(expected)
    for title, field in expected.items():
        drawn = np.roll(np.asarray(maps[title].get_array())[:, :18], 9, axis=1)  # back from 180°W to 0°E
        np.testing.assert_allclose(drawn.ravel(), field, err_msg=title)
    low, high = maps["mean − truth"].get_clim()
    assert low == -high
    assert maps["truth"].get_clim() == maps["member 4"].get_clim() == maps["ensemble mean"].get_clim()
    assert figure.get_suptitle() == "temperature at 850 hPa, 24 h after 2025-01-01T00 UTC"


def test_panel_takes_one_of_several_starts(forecast, truth):
    both = [x.swap_dims(time="lead_time").drop_vars("time") for x in (forecast, forecast + 7.0)]
    times = xr.DataArray([START, START + 240 * HOUR], dims="start")
    many = xr.concat(both, "start", coords="minimal", compat="override").assign_coords(
        forecast_reference_time=times
    )
    figure = forecast_panel(many, many.isel(ensemble=0), "t850", lead_time=12 * HOUR, start=1)
    drawn = {ax.get_title(): ax.collections[0] for ax in figure.axes if ax.get_title()}["truth"].get_array()
    np.testing.assert_allclose(np.roll(drawn[:, :18], 9, axis=1).ravel(), forecast["t850"].values[0, 0] + 7)
