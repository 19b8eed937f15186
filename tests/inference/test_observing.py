"""Tables of observations: read, checked, and placed on a grid."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from diffusion_lab.guidance import DPS, MMPS
from diffusion_lab.inference.observing import (
    ObservationTable,
    area_mean_operator,
    interpolating_operator,
    read_observations,
)

TABLE = """time,latitude,longitude,variable,value,error,units
2025-01-15,48.1,11.6,t850,271.5,0.5,K
2025-01-15T00,-33.9,151.2,msl,101500,50,Pa
2025-01-16,48.1,11.6,t850,270.0,0.5,K
"""
LATITUDES = np.repeat(90 - 15 * (np.arange(12) + 0.5), 24)
LONGITUDES = np.tile(15.0 * np.arange(24), 12)


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "observations.csv"
    path.write_text(TABLE)
    return path


def test_csv_data_frame_and_dataset_are_one_table(csv, tmp_path):
    frame = pd.read_csv(csv)
    dataset = xr.Dataset.from_dataframe(frame.drop(columns="units").rename_axis("observation"))
    dataset["time"] = dataset["time"].astype("datetime64[ns]")
    dataset.to_netcdf(tmp_path / "observations.nc", engine="h5netcdf")
    first, *others = map(read_observations, (csv, frame, dataset, tmp_path / "observations.nc"))
    assert len(first) == 3
    assert len(first.at(np.datetime64("2025-01-15", "s"))) == 2
    for other in others:
        for name in ("time", "latitude", "variable", "value", "error"):
            assert (getattr(other, name) == getattr(first, name)).all()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("error", "sigma", "lack the columns error"),
        ("0.5,K", "-0.5,K", "row 1 .* error -0.5"),
        ("101500", "", "row 2 .* no value"),
        ("101500", "high", "cannot be read: .*high"),
        ("-33.9", "-133.9", "row 2 .* latitude -133.9"),
        ("50,Pa", "0.5,hPa", "row 2 .* msl in hPa, the model has it in Pa"),
    ],
)
def test_a_row_that_does_not_fit_is_named(csv, old, new, words):
    csv.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(ValueError, match=words):
        read_observations(csv, {"t850": "K", "msl": "Pa"})


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_observations(tmp_path / "none.csv")


def test_states_are_seen_where_the_table_says(csv):
    """Fields that are linear in the latitude within a row of cells are interpolated between rows."""
    table = read_observations(csv).at(np.datetime64("2025-01-15", "s"))
    operator = interpolating_operator(table, ("msl", "t850"), LATITUDES, LONGITUDES)
    state = torch.zeros(1, 1, 2, len(LATITUDES), 2)
    state[..., 0] = 1000.0
    state[0, 0, 1, :, 1] = torch.from_numpy(LATITUDES).float()
    seen = operator(state)
    assert seen.shape == (1, 2, 2)
    assert seen[0, :, 1].tolist() == pytest.approx([1000.0, 1000.0])  # msl, second row of the table
    assert seen[0, 0, 0].item() == 0.0
    assert seen[0, 1, 0].item() == pytest.approx(48.1, abs=0.6)  # triangles are flat


def test_another_variable_is_named(csv):
    with pytest.raises(ValueError, match=r"row 2 .* 'msl'; the model has t850"):
        interpolating_operator(read_observations(csv), ("t850",), LATITUDES, LONGITUDES)


def test_area_means_are_weighted_and_cross_the_date_line():
    area = np.cos(np.deg2rad(LATITUDES))
    operator = area_mean_operator([(0, 90, 170, -170), (-90, 90, 0, 360)], 0, LATITUDES, LONGITUDES, area)
    field = np.random.default_rng(0).normal(size=len(LATITUDES))
    seen = operator(torch.from_numpy(field)[None, None, None, :, None])[0, 0]
    box = (LATITUDES > 0) & (np.abs(LONGITUDES - 180) <= 10)
    assert seen[0].item() == pytest.approx(np.average(field[box], weights=area[box]))
    assert seen[1].item() == pytest.approx(np.average(field, weights=area))
    with pytest.raises(ValueError, match="no cell lies in 1 … 2°N"):
        area_mean_operator([(1, 2, 1, 2)], 0, LATITUDES, LONGITUDES, area)


START, DAY = np.datetime64("2025-01-10", "s"), np.timedelta64(1, "D")


def at_cells(cells, value, error, variable="t850", valid=START + DAY):
    """Observations of a variable at some cells of the toy grid."""
    count = len(cells)
    return ObservationTable(
        np.repeat(valid, count),
        LATITUDES[cells],
        LONGITUDES[cells],
        np.repeat(variable, count),
        np.full(count, value),
        np.full(count, error),
    )


@pytest.mark.parametrize("method", [MMPS, DPS])
def test_an_analysis_of_tendencies_is_the_known_posterior_of_states(blank, toy_store, method):
    """With F = 0 the normalised tendency is N(0, 1) at each cell, so the state is Gaussian about its past."""
    cells, error = [30, 100, 205], 2.0
    table = at_cells(cells, 290.0, error)
    settings = blank.settings.override({"num_steps": 30, "sigma_max": 80.0}, {"sampler": "dpmpp_3m"})
    analysis = blank.analyse(START, table, 1, 400, 0, settings, toy_store, method, members_per_call=100)
    column = toy_store.variables.index("t850")
    statistics = toy_store.tendency_statistics("1d")
    before = toy_store.read(toy_store.index("2025-01-10"), ["t850"])[0, 0, 0]
    prior, spread = before + statistics.mean[column], statistics.stdev[column]
    weight = spread**2 / (spread**2 + error**2)
    expected = np.where(np.isin(np.arange(len(prior)), cells), prior + weight * (290.0 - prior), prior)
    mean, stdev = (analysis["t850"][0].astype(float).reduce(f, "ensemble").values for f in (np.mean, np.std))
    np.testing.assert_allclose(mean[cells], expected[cells], atol=4 * spread / 20)
    np.testing.assert_allclose(stdev[cells], np.sqrt(weight) * error, rtol=0.12)
    others = np.setdiff1d(np.arange(len(prior)), cells)
    assert np.abs(mean - expected)[others].mean() < spread / 20
    assert stdev[others].mean() == pytest.approx(spread, rel=0.03)


def test_an_analysis_without_observations_is_the_forecast(forecaster, toy_store):
    table = at_cells([0], 1e5, 1.0, "msl", START + 2 * DAY)
    analysis = forecaster.analyse(START, table, 2, 2, 0, None, toy_store)
    forecast = forecaster.forecast(START, 2, 2, 0, toy_store)
    np.testing.assert_array_equal(analysis["msl"][0], forecast["msl"][0])
    assert (analysis["msl"][1] != forecast["msl"][1]).any()


def test_observations_at_another_time_are_refused(forecaster, toy_store):
    table = at_cells([0], 1e5, 1.0, "msl", START + 5 * DAY)
    with pytest.raises(ValueError, match="first at 2025-01-15T00:00:00; it is valid at 2025-01-11T00:00:00"):
        forecaster.analyse(START, table, 1, 2, 0, None, toy_store)
