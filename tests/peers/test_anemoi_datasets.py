"""Stores go both ways between us and the real anemoi-datasets, which reads and writes them with zarr 2."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from diffusion_lab.making import StoreMetadata, Variable, create_store
from diffusion_lab.stores import compute_forcing, open_store
from diffusion_lab.stores.statistics import STATISTICS

DUMP = Path(__file__).with_name("dump_with_anemoi.py")
HALF_DAY = np.timedelta64(12, "h")
DATES = np.datetime64("2024-01-01", "s") + np.arange(40) * HALF_DAY
MISSING = [7, 8, 30]
WINDOW = ("2024-01-01T00", "2024-01-16T12")
FORCINGS = ["cos_latitude", "sin_longitude", "cos_local_time", "sin_julian_day", "insolation"]


@pytest.fixture
def opened_by_anemoi(anemoi_datasets, run_peer, tmp_path):
    def read(path, lead):
        run_peer(anemoi_datasets, DUMP, path, lead, tmp_path / "dump.npz")
        return dict(np.load(tmp_path / "dump.npz"))

    return read


def assert_same(theirs, store, lead):
    """All that both know of a store is equal, bit for bit."""
    assert tuple(theirs["variables"]) == store.variables
    assert tuple(theirs["field_shape"]) == store.field_shape
    assert theirs["frequency"] == store.frequency
    np.testing.assert_array_equal(theirs["dates"], store.dates)
    np.testing.assert_array_equal(theirs["missing"], np.flatnonzero(store.missing))
    np.testing.assert_array_equal(theirs["latitudes"], store.latitudes)
    np.testing.assert_array_equal(theirs["longitudes"], store.longitudes)
    for name in STATISTICS:
        np.testing.assert_array_equal(theirs[f"state_{name}"], getattr(store.statistics, name))
        change = getattr(store.tendency_statistics(lead), name)
        np.testing.assert_array_equal(theirs[f"change_{name}"], change)
    assert theirs["data"].dtype == np.float32
    np.testing.assert_array_equal(theirs["data"], store.read(theirs["present"]))
    assert len(theirs["present"]) == len(store.dates) - store.missing.sum()


def test_they_open_ours(opened_by_anemoi, toy_store):
    theirs = opened_by_anemoi(toy_store.path, "1d")
    assert_same(theirs, toy_store, "1d")
    assert theirs["missing"].tolist() == [100]  # 10 April, the 101st day of a leap year
    assert theirs["constant_fields"].tolist() == ["orography"]


@pytest.fixture(scope="module")
def fields():
    """(date, [msl, t850], cell) float32 on the octahedral reduced Gaussian grid O8."""
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(40, 2, 544)).cumsum(0) * np.array([100.0, 2.0])[:, None]
    return (walk + np.array([1e5, 280.0])[:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def made_by_anemoi(anemoi_datasets, run_peer, fields, octahedral, tmp_path_factory):
    """The path of a store that `anemoi-datasets create` made of a netCDF file that lacks three dates."""
    folder, (latitudes, longitudes) = tmp_path_factory.mktemp("theirs"), octahedral(8)
    present = np.delete(np.arange(40), MISSING)
    place = {"latitude": "degrees_north", "longitude": "degrees_east"}
    xr.Dataset(
        {
            "msl": (("time", "values"), fields[present, 0], {"units": "Pa"}),
            "t850": (("time", "values"), fields[present, 1], {"units": "K"}),
        },
        {
            "time": DATES[present].astype("datetime64[ns]"),
            "latitude": ("values", latitudes, {"units": place["latitude"], "standard_name": "latitude"}),
            "longitude": ("values", longitudes, {"units": place["longitude"], "standard_name": "longitude"}),
        },
    ).to_netcdf(folder / "source.nc", engine="h5netcdf")
    recipe = {
        "dates": {
            "start": str(DATES[0]),
            "end": str(DATES[-1]),
            "frequency": "12h",
            "missing": [str(DATES[i]) for i in MISSING],
        },
        "input": {
            "join": [
                {"netcdf": {"path": str(folder / "source.nc"), "param": ["msl", "t850"]}},
                {"forcings": {"template": "${input.join.0.netcdf}", "param": FORCINGS}},
            ]
        },
        "statistics": {"start": WINDOW[0] + ":00:00", "end": WINDOW[1] + ":00:00", "tendencies": [12, 24]},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run_peer(
        anemoi_datasets,
        *("-m", "anemoi.datasets", "create", folder / "recipe.yaml", folder / "theirs.zarr"),
    )
    return folder / "theirs.zarr"


def test_we_open_theirs(opened_by_anemoi, made_by_anemoi, fields):
    store = open_store(made_by_anemoi)
    assert_same(opened_by_anemoi(made_by_anemoi, "12h"), store, "12h")
    assert np.flatnonzero(store.missing).tolist() == MISSING
    assert store.tendency_leads == ("12h", "1d")
    assert {name for name, role in store.roles.items() if role == "forcing"} == set(FORCINGS)
    assert (store.units("msl"), store.units("t850")) == ("Pa", "K")
    present = ~store.missing
    np.testing.assert_array_equal(store.read(present.nonzero()[0], ["msl", "t850"])[:, :, 0], fields[present])
    assert np.isnan(store.read(MISSING)).all()


def test_their_statistics_and_forcings_are_what_we_compute(made_by_anemoi, fields, tmp_path):
    """Two programs, one answer: also how missing dates and the window's edge enter the tendencies."""
    theirs = open_store(made_by_anemoi)
    metadata = StoreMetadata(
        [Variable("msl", "Pa"), Variable("t850", "K")],
        DATES,
        theirs.latitudes,
        theirs.longitudes,
        theirs.field_shape,
        "o8",
        statistics_window=WINDOW,
        missing_dates=DATES[MISSING],
    )
    ours = create_store(tmp_path / "ours.zarr", metadata, lambda times: fields[times])
    columns = [theirs.variables.index(name) for name in ours.variables]
    pairs = [(ours.statistics, theirs.statistics)]
    pairs += [(ours.tendency_statistics(lead), theirs.tendency_statistics(lead)) for lead in ("12h", "1d")]
    for mine, other in pairs:
        for name in STATISTICS:
            np.testing.assert_allclose(getattr(mine, name), getattr(other, name)[columns], rtol=1e-6)
    for name in FORCINGS:
        computed = compute_forcing(name, DATES[~theirs.missing], theirs.latitudes, theirs.longitudes)
        stored = theirs.read(np.flatnonzero(~theirs.missing), [name])[:, 0, 0]
        np.testing.assert_allclose(computed, stored, atol=2e-6)
