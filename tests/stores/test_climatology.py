"""The climatology recovers harmonics it was made from, from a store with gaps."""

import numpy as np
import pytest

from diffusion_lab.making import StoreMetadata, Variable, create_store
from diffusion_lab.stores.climatology import Climatology, fit_climatology

DATES = np.arange("2019-01-01", "2022-01-01", np.timedelta64(12, "h"), dtype="datetime64[s]")


def truth(dates):
    """(time, variable, cell): an annual and a semi-annual cycle that differ by variable, cell and hour."""
    year = dates.astype("datetime64[Y]")
    length = ((year + 1).astype("datetime64[D]") - year.astype("datetime64[D]")).astype(float)
    t = 2 * np.pi * ((dates - year).astype("timedelta64[s]").astype(float) / 86400 / length)
    noon = (dates - dates.astype("datetime64[D]")).astype("timedelta64[h]").astype(int) == 12
    cell = np.arange(3)
    t850 = 280 + 10 * np.cos(t - 0.3)[:, None] * (cell - 1) + 2 * np.sin(2 * t)[:, None] + 3.0 * noon[:, None]
    u850 = 5 + np.cos(2 * t + 1.0)[:, None] * cell - 4 * np.sin(t)[:, None] * noon[:, None]
    return np.stack([t850, u850], axis=1)


def make_store(path, fields, missing=()):
    names = [Variable("t850", "K"), Variable("u850", "m s-1"), Variable("lsm", "1", "forcing")]
    place = np.array([0.0, 10.0, 20.0])
    metadata = StoreMetadata(
        names, DATES, place, place, (3,), "x", ("2019", "2021"), missing_dates=DATES[list(missing)]
    )
    return create_store(path, metadata, lambda block: np.pad(fields[block], ((0, 0), (0, 1), (0, 0))))


def test_harmonics_are_recovered_at_other_dates(tmp_path):
    fields = truth(DATES)
    fields[[3, 700]] = 1e6  # declared missing, and must not count
    fields[np.datetime64("2021-01-01") <= DATES] = -50.0  # a test year that is not fitted
    store = make_store(tmp_path / "s.zarr", fields, missing=[3, 700])
    climatology = fit_climatology(store, "2019", "2020")
    assert climatology.variables == ("t850", "u850")
    dates = np.array(["2024-02-29T12", "2023-07-01T00", "2025-12-31T12"], "datetime64[s]")
    np.testing.assert_allclose(climatology.evaluate(dates), truth(dates), atol=2e-4)


def test_noise_is_averaged_as_least_squares_does(tmp_path):
    noise = np.random.default_rng(0).normal(0, 1, (len(DATES), 2, 3))
    climatology = fit_climatology(make_store(tmp_path / "s.zarr", truth(DATES) + noise), "2019", "2021")
    error = climatology.evaluate(DATES) - truth(DATES)
    # 5 coefficients from 1096 dates an hour: the mean squared error is 5/1096 of the noise's variance.
    assert np.mean(error**2) == pytest.approx(5 / 1096, rel=0.5)


def test_save_and_load(tmp_path):
    coefficients = np.random.default_rng(0).normal(size=(2, 5, 1, 4)).astype(np.float32)
    saved = Climatology(("z500",), np.array([0, 12]), coefficients)
    saved.save(tmp_path / "c.npz")
    loaded = Climatology.load(tmp_path / "c.npz")
    assert loaded.variables == ("z500",)
    np.testing.assert_array_equal(loaded.evaluate(DATES[:5]), saved.evaluate(DATES[:5]))


def test_an_hour_that_was_not_fitted_is_an_error():
    climatology = Climatology(("z500",), np.array([0, 12]), np.zeros((2, 5, 1, 1), np.float32))
    with pytest.raises(KeyError, match="2020-01-01T06:00"):
        climatology.evaluate(np.array(["2020-01-01T06"], "datetime64[s]"))


def test_too_few_dates_are_an_error(tmp_path):
    store = make_store(tmp_path / "s.zarr", truth(DATES))
    with pytest.raises(ValueError, match="do not determine"):
        fit_climatology(store, "2019-01-01", "2019-01-02")
