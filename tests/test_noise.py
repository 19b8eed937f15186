"""Keyed noise is the same whoever else is drawn; spherical noise is isotropic."""

import math

import numpy as np
import pytest
import torch

from diffusion_lab.noise import MemberNoise, SphericalNoise, noise_like, spherical_harmonics

SHAPE = (2, 30, 3)


def nodes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latitudes = torch.rand(count, generator=generator, dtype=torch.float64).mul(2).sub(1).asin().rad2deg()
    return latitudes, 360 * torch.rand(count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("field", ["white", "spherical"])
def test_noise_does_not_depend_on_batch_order_or_chunks(field):
    noise = MemberNoise(7) if field == "white" else MemberNoise(7, SphericalNoise(*nodes(30), 3))
    together = noise.at([10, 20], 1, range(4), SHAPE)(5)
    assert together.shape == (2, 2, 4, 30, 3)
    for b, start in enumerate((10, 20)):
        assert torch.equal(noise.at(start, 1, [3, 0], SHAPE)(5), together[b : b + 1, :, [3, 0]])
        for member in range(4):
            alone = noise.at(start, 1, [member], SHAPE)
            alone(0), alone(9)  # other draws in between change nothing
            assert torch.equal(alone(5)[0, :, 0], together[b, :, member])


def test_every_part_of_the_key_counts():
    first = [
        MemberNoise(seed).at(start, lead, [member], (1, 1, 1))(draw).item()
        for seed in range(5)
        for start in range(5)
        for lead in range(5)
        for member in range(5)
        for draw in range(5)
    ]
    assert len(set(first)) > 3100  # 3125 keys; a few float32 values may coincide
    assert abs(np.mean(first)) < 4 / math.sqrt(3125)
    assert abs(np.var(first) - 1) < 4 * math.sqrt(2 / 3125)


def test_the_stream_is_frozen():
    # Forecasts can only be repeated while these stay: a change is a break of every seed ever noted down.
    drawn = MemberNoise(0).at(np.datetime64("2025-01-01T00:00"), np.timedelta64(24, "h"), [0], (1, 1, 3))(0)
    assert drawn.flatten().tolist() == pytest.approx(
        [0.00753244478, -0.74267321825, -0.22673402727], abs=1e-6
    )


def remembered(steps, correlation, shape, field=None):
    """Noise of the last of some steps, and the fresh noise of each of them."""
    leads = list(range(1, steps + 1))
    fresh = [MemberNoise(3, field).at(10, lead, [0], shape)(2)[0, :, 0] for lead in leads]
    return MemberNoise(3, field, correlation).at(10, leads, [0], shape)(2)[0, :, 0], fresh


def test_correlated_noise_is_autoregressive_of_unit_variance():
    states = [remembered(n, 0.6, (1, 40_000, 1))[0].flatten() for n in range(1, 5)]
    _, fresh = remembered(4, 0.6, (1, 40_000, 1))
    assert torch.equal(states[0], fresh[0].flatten())
    torch.testing.assert_close(states[1], 0.6 * states[0] + 0.8 * fresh[1].flatten())
    correlations = np.corrcoef(torch.stack(states).numpy())
    lag = np.abs(np.subtract.outer(range(4), range(4)))
    np.testing.assert_allclose(correlations, 0.6**lag, atol=4 / 200)  # four standard errors
    np.testing.assert_allclose([state.var().item() for state in states], 1, atol=4 * math.sqrt(2) / 200)


def test_small_scales_of_spherical_noise_forget_sooner():
    """The part at wavenumber l is correlated by φ^(1 + (l/L)²): 0.5 at l = 0 is 0.25 at l = L = 4."""
    latitudes, longitudes = nodes(200)
    harmonics = spherical_harmonics(latitudes, longitudes, 4)
    shape, field = (1, 200, 3), SphericalNoise(latitudes, longitudes, 4)
    (first, _), (second, (_, fresh)) = (remembered(n, 0.5, shape, field) for n in (1, 2))
    parts = [torch.linalg.lstsq(harmonics, noise[0].double()).solution for noise in (first, second, fresh)]
    for degree in range(5):
        kept = 0.5 ** (1 + degree**2 / 16)
        before, after, new = (part[degree**2 : (degree + 1) ** 2] for part in parts)
        torch.testing.assert_close(after, kept * before + math.sqrt(1 - kept**2) * new, atol=1e-5, rtol=0)


def test_dates_are_the_same_key_in_any_unit():
    for unit in ("h", "s", "ns"):
        date = np.datetime64("2025-03-01T12", unit)
        drawn = MemberNoise(0).at([date], np.timedelta64(1, "D"), [1], SHAPE)(0)
        reference = MemberNoise(0).at(
            np.datetime64("2025-03-01T12", "m"), np.timedelta64(24, "h"), [1], SHAPE
        )(0)
        assert torch.equal(drawn, reference)
    dates = np.array(["2025-03-01T12", "2025-03-02T12"], dtype="datetime64[ns]")
    assert torch.equal(MemberNoise(0).at(dates, np.timedelta64(1, "D"), [1], SHAPE)(0)[:1], reference)


def test_noise_like_follows_its_generator():
    y = torch.zeros(3, 4, dtype=torch.float64)
    first, second = (
        noise_like(y, torch.Generator().manual_seed(3)),
        noise_like(y, torch.Generator().manual_seed(3)),
    )
    assert torch.equal(first(1), second(1))
    assert not torch.equal(first(2), first(3))


def test_harmonics_are_orthonormal_on_the_sphere():
    # Gauss-Legendre in latitude, even spacing in longitude: exact for products of harmonics up to 8.
    x, weights = np.polynomial.legendre.leggauss(9)
    latitudes = torch.from_numpy(np.degrees(np.arcsin(x))).repeat_interleave(18)
    longitudes = (torch.arange(18) * 20.0).repeat(9)
    harmonics = spherical_harmonics(latitudes, longitudes, 8)
    gram = harmonics.T @ (torch.from_numpy(weights).repeat_interleave(18)[:, None] / 36 * harmonics)
    assert torch.allclose(gram, torch.eye(81, dtype=torch.float64), atol=1e-12)


def test_harmonics_agree_with_scipy():
    special = pytest.importorskip("scipy.special")
    latitudes, longitudes = nodes(20)
    harmonics = spherical_harmonics(latitudes, longitudes, 40)
    colatitude, azimuth = np.radians(90 - latitudes.numpy()), np.radians(longitudes.numpy())
    for degree, m in ((0, 0), (1, 1), (3, 2), (17, 5), (40, 39), (40, 0)):
        legendre = special.lpmv(m, degree, np.cos(colatitude)) * (-1) ** m
        factor = math.sqrt(
            (2 if m else 1) * (2 * degree + 1) * math.gamma(degree - m + 1) / math.gamma(degree + m + 1)
        )
        column = degree**2 + degree
        cosine, sine = (harmonics[:, column + k].numpy() for k in (m, -m))
        assert np.allclose(cosine, factor * legendre * np.cos(m * azimuth), atol=1e-9)
        if m:
            assert np.allclose(sine, factor * legendre * np.sin(m * azimuth), atol=1e-9)


def test_covariance_depends_on_distance_only():
    spectrum = torch.tensor([1.0, 4.0, 2.0, 0.0, 3.0])
    latitudes, longitudes = nodes(25)
    basis = SphericalNoise(latitudes, longitudes, 4, spectrum).basis.double()
    phi, lam = latitudes.deg2rad(), longitudes.deg2rad()
    points = torch.stack([phi.cos() * lam.cos(), phi.cos() * lam.sin(), phi.sin()], 1)
    legendre = np.polynomial.legendre.legval((points @ points.T).numpy(), (spectrum / 10).numpy())
    assert torch.allclose(basis @ basis.T, torch.from_numpy(legendre), atol=1e-6)  # 1 on the diagonal


def test_spherical_noise_has_unit_variance_when_drawn():
    noise = MemberNoise(0, SphericalNoise(*nodes(12), 6)).at(0, 0, range(100), (1, 12, 40))
    variance = noise(0).pow(2).mean((0, 1, 2, 4))
    assert (variance - 1).abs().max() < 4 * math.sqrt(2 / 4000)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="12 nodes, this noise was made for 10"):
        MemberNoise(0, SphericalNoise(*nodes(10), 3)).at(0, 0, [0], (1, 12, 1))(0)
    with pytest.raises(ValueError, match="spectrum needs 4 values"):
        SphericalNoise(*nodes(10), 3, torch.ones(3))
    with pytest.raises(ValueError, match="one shape"):
        spherical_harmonics(torch.zeros(3), torch.zeros(4), 3)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, True, "7"])
def test_what_is_not_a_seed(seed):
    with pytest.raises(ValueError, match=r"seed = .* must be an integer of 64 bits"):
        MemberNoise(seed)
