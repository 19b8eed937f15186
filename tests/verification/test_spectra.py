import numpy as np
import pytest
import torch

from diffusion_lab.graphs import area_weights
from diffusion_lab.graphs.sphere import gaussian_latitudes
from diffusion_lab.noise import spherical_harmonics
from diffusion_lab.verification.spectra import PowerSpectrum, quadrature_weights


def gaussian_grid(rows, columns):
    latitudes, longitudes = gaussian_latitudes(rows), 360 / columns * np.arange(columns)
    return np.repeat(latitudes, columns), np.tile(longitudes, rows)


def spiral(count):
    """Nodes of no rows: a Fibonacci spiral."""
    number = np.arange(count) + 0.5
    return np.rad2deg(np.arcsin(1 - 2 * number / count)), number * 137.50776405 % 360


GRIDS = {
    "gaussian": gaussian_grid(32, 64),
    "regular": tuple(
        a.ravel() for a in np.meshgrid(np.linspace(85, -85, 18), np.arange(0, 360, 10.0), indexing="ij")
    ),
    "spiral": spiral(500),
}
HIGHEST = 9


@pytest.fixture(scope="module", params=GRIDS)
def grid(request):
    return GRIDS[request.param]


@pytest.fixture(scope="module")
def spectrum(grid):
    return PowerSpectrum(*grid, HIGHEST)


def test_a_harmonic_has_its_power_at_its_wavenumber_alone(grid, spectrum):
    harmonics = spherical_harmonics(*map(torch.from_numpy, grid), HIGHEST)
    for wavenumber, order in [(0, 0), (1, -1), (8, 5), (HIGHEST, HIGHEST), (HIGHEST, 0)]:
        power = spectrum(3 * harmonics[:, wavenumber**2 + wavenumber + order])
        expected = np.zeros(HIGHEST + 1)
        expected[wavenumber] = 9.0
        np.testing.assert_allclose(power, expected, atol=1e-10)


def test_textbook_harmonics_have_the_power_that_integrals_give(grid, spectrum):
    """Over the sphere, sin φ has mean square 1/3; cos²φ cos 2λ, of l = 2, 4/15; sin²φ = 1/3 + 2/3 P_2."""
    latitude, longitude = np.deg2rad(grid)
    fields = np.stack(
        [np.sin(latitude), np.cos(latitude) ** 2 * np.cos(2 * longitude), np.sin(latitude) ** 2]
    )
    power = spectrum(torch.from_numpy(fields))
    np.testing.assert_allclose(power[0], np.eye(HIGHEST + 1)[1] / 3, atol=1e-10)
    np.testing.assert_allclose(power[1], np.eye(HIGHEST + 1)[2] * 4 / 15, atol=1e-10)
    np.testing.assert_allclose(
        power[2], np.eye(HIGHEST + 1)[0] / 9 + np.eye(HIGHEST + 1)[2] * 4 / 45, atol=1e-10
    )


def test_power_adds_up_to_the_mean_square():
    """Parseval, with the mean square by Gauss-Legendre quadrature, exact for products of harmonics ≤ 21."""
    latitudes, longitudes = GRIDS["gaussian"]
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(5, 22**2, generator=generator, dtype=torch.float64)
    harmonics = spherical_harmonics(torch.from_numpy(latitudes), torch.from_numpy(longitudes), 21)
    fields = coefficients @ harmonics.T
    mean_square = (fields.numpy() ** 2 * np.repeat(np.polynomial.legendre.leggauss(32)[1] / 128, 64)).sum(-1)
    np.testing.assert_allclose(PowerSpectrum(latitudes, longitudes)(fields).sum(-1), mean_square, rtol=1e-12)
    np.testing.assert_allclose(mean_square, coefficients.square().sum(-1), rtol=1e-12)


def test_what_the_gaussian_grid_resolves_beyond_does_not_leak_in():
    """On 32 Gaussian latitudes, a product of wavenumbers 21 and 42 is still integrated exactly."""
    latitudes, longitudes = GRIDS["gaussian"]
    harmonics = spherical_harmonics(torch.from_numpy(latitudes), torch.from_numpy(longitudes), 42)
    beyond = harmonics[:, 22**2 :].sum(1)
    np.testing.assert_allclose(PowerSpectrum(latitudes, longitudes, 21)(beyond), np.zeros(22), atol=1e-20)


def test_power_does_not_turn_with_the_sphere():
    generator = torch.Generator().manual_seed(1)
    latitudes, longitudes = GRIDS["gaussian"]
    coefficients = torch.randn(22**2, generator=generator, dtype=torch.float64)
    here = spherical_harmonics(torch.from_numpy(latitudes), torch.from_numpy(longitudes), 21) @ coefficients
    # The field seen from a north pole at 60° N: node positions turned about the y axis.
    north, east = np.deg2rad(latitudes), np.deg2rad(longitudes)
    x, y, z = np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)
    angle = np.pi / 6
    x, z = x * np.cos(angle) - z * np.sin(angle), x * np.sin(angle) + z * np.cos(angle)
    turned_latitudes, turned_longitudes = np.rad2deg(np.arcsin(z)), np.rad2deg(np.arctan2(y, x))
    harmonics = spherical_harmonics(
        torch.from_numpy(turned_latitudes), torch.from_numpy(turned_longitudes), 21
    )
    spectrum = PowerSpectrum(latitudes, longitudes)
    np.testing.assert_allclose(spectrum(harmonics @ coefficients), spectrum(here), rtol=1e-9)


def test_quadrature_weights_are_exact_on_full_and_reduced_gaussian_grids():
    _, weights = np.polynomial.legendre.leggauss(32)
    full = quadrature_weights(*GRIDS["gaussian"])
    np.testing.assert_allclose(full, np.repeat(weights / 128, 64), rtol=1e-12)
    columns = np.array([8, 12, 12, 8])  # reduced: fewer nodes near the poles
    latitudes = np.repeat(gaussian_latitudes(4), columns).astype(np.float32)
    longitudes = np.concatenate([360 / n * np.arange(n) for n in columns])
    reduced = quadrature_weights(latitudes, longitudes)
    assert reduced.sum() == pytest.approx(1, abs=1e-12)
    assert (reduced * np.sin(np.deg2rad(latitudes)) ** 6).sum() == pytest.approx(1 / 7, abs=1e-6)
    np.testing.assert_array_equal(quadrature_weights(*GRIDS["spiral"]), area_weights(*GRIDS["spiral"]))


def test_wavenumbers_by_default_are_those_the_nodes_resolve():
    assert PowerSpectrum(*GRIDS["gaussian"]).wavenumbers[-1] == 21
    assert PowerSpectrum(*spiral(400)).wavenumbers[-1] == 9


def test_missing_values_have_no_spectrum():
    fields = torch.ones(2, 500)
    fields[1, 7] = torch.nan
    power = PowerSpectrum(*GRIDS["spiral"], 3)(fields)
    np.testing.assert_allclose(power[0], [1, 0, 0, 0], atol=1e-6)
    assert power[1].isnan().all()


def test_nodes_that_determine_no_harmonics_are_refused():
    with pytest.raises(ValueError, match="500 nodes do not determine the harmonics to wavenumber 25"):
        PowerSpectrum(*GRIDS["spiral"], 25)
    latitudes, longitudes = GRIDS["gaussian"]
    europe = (latitudes > 30) & (latitudes < 75) & (longitudes < 60)
    with pytest.raises(ValueError, match="a limited area has no spectrum"):
        PowerSpectrum(latitudes[europe], longitudes[europe], 5)
