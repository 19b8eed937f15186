"""Spectral truncation is exact on harmonics and solid flows; area means keep the integral."""

import numpy as np
import pytest
from scipy.special import sph_harm_y

from diffusion_lab.graphs.sphere import gaussian_latitudes
from diffusion_lab.making.speedy.gaussian_grid import SpectralTruncation, coarsened

SOUTH_FIRST = gaussian_latitudes(48)[::-1]  # as jcm has it
NORTH_FIRST = gaussian_latitudes(32)
TRUNCATION = SpectralTruncation(SOUTH_FIRST, NORTH_FIRST, 64, 21)


def angles(latitudes, longitudes):
    return np.deg2rad(latitudes)[:, None], 2 * np.pi * np.arange(longitudes)[None] / longitudes


def harmonic(n, m, latitudes, longitudes):
    latitude, longitude = angles(latitudes, longitudes)
    return sph_harm_y(n, m, np.pi / 2 - latitude, longitude).real


def test_gaussian_latitudes_of_t21():
    # The T21 grid as ECMWF tabulates it (N16).
    np.testing.assert_allclose(NORTH_FIRST[:3], [85.7606, 80.2688, 74.7445], atol=5e-5)
    np.testing.assert_array_equal(NORTH_FIRST, -NORTH_FIRST[::-1])


@pytest.mark.parametrize(("n", "m"), [(0, 0), (1, 0), (5, 3), (21, 0), (21, 21)])
def test_harmonics_within_the_truncation_are_reproduced(n, m):
    out = TRUNCATION.scalar(harmonic(n, m, SOUTH_FIRST, 96))
    np.testing.assert_allclose(out, harmonic(n, m, NORTH_FIRST, 64), atol=5e-12)


@pytest.mark.parametrize(("n", "m"), [(22, 0), (22, 22), (31, 7)])
def test_harmonics_beyond_the_truncation_vanish(n, m):
    assert np.abs(TRUNCATION.scalar(harmonic(n, m, SOUTH_FIRST, 96))).max() < 5e-12


def over_the_pole(latitude, longitude):
    """Solid rotation about an axis in the equator: u and v jump at the pole, the flow does not."""
    return -np.sin(latitude) * np.cos(longitude), np.sin(longitude) + 0 * latitude


def around_the_axis(latitude, longitude):
    return np.cos(latitude) + 0 * longitude, 0 * latitude * longitude


def towards_the_pole(latitude, longitude):
    """The gradient of sin(latitude): a divergent flow."""
    return 0 * latitude * longitude, np.cos(latitude) + 0 * longitude


@pytest.mark.parametrize("flow", [over_the_pole, around_the_axis, towards_the_pole])
def test_smooth_flows_are_reproduced(flow):
    out = TRUNCATION.wind(*flow(*angles(SOUTH_FIRST, 96)))
    np.testing.assert_allclose(out, flow(*angles(NORTH_FIRST, 64)), atol=5e-12)


def test_wind_keeps_vorticity_up_to_the_truncation_only():
    # The rotational wind of a stream function Y_n^m by central differences of the analytic field.
    def wind(n, m, latitudes, longitudes):
        latitude, longitude = angles(latitudes, longitudes)
        psi = lambda a, b: sph_harm_y(n, m, np.pi / 2 - a, b).real  # noqa: E731
        h = 1e-5
        u = -(psi(latitude + h, longitude) - psi(latitude - h, longitude)) / (2 * h)
        v = (psi(latitude, longitude + h) - psi(latitude, longitude - h)) / (2 * h) / np.cos(latitude)
        return u, v

    kept = TRUNCATION.wind(*wind(21, 4, SOUTH_FIRST, 96))
    np.testing.assert_allclose(kept, wind(21, 4, NORTH_FIRST, 64), atol=1e-5)
    assert np.abs(TRUNCATION.wind(*wind(22, 4, SOUTH_FIRST, 96))).max() < 1e-5


def test_grids_that_are_not_gaussian_or_too_coarse_are_errors():
    with pytest.raises(ValueError, match="not Gaussian"):
        SpectralTruncation(np.linspace(-85, 85, 48), NORTH_FIRST, 64, 21)
    with pytest.raises(ValueError, match="finer grid"):
        SpectralTruncation(gaussian_latitudes(16), NORTH_FIRST, 64, 21)


def test_area_mean_keeps_the_global_mean_and_the_bounds():
    field = (np.random.default_rng(0).random((48, 96)) > 0.5).astype(float)
    coarse = coarsened(field, 32, 64)

    def mean(values):
        return np.polynomial.legendre.leggauss(len(values))[1] @ values.mean(axis=1) / 2

    assert mean(coarse) == pytest.approx(mean(field), rel=1e-12)
    assert coarse.min() >= 0 and coarse.max() <= 1 + 1e-12
    # 96 longitudes on 64: a cell centred on a fine one holds it and a quarter of each neighbour.
    row = np.zeros((48, 96))
    row[:, 0] = 1.0
    np.testing.assert_allclose(coarsened(row, 32, 64)[0, [0, 1, 63]], [2 / 3, 0, 0], atol=1e-12)
