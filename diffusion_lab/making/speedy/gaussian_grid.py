"""Gaussian grids: spectral truncation of scalars and winds from one to another, and area means.

A field on a Gaussian grid is projected on the spherical harmonics of total wavenumber n <= N and evaluated on
another grid. The projection acts on each zonal wavenumber separately: a Fourier transform in longitude, then
one small matrix per wavenumber in latitude. Longitudes start at 0; latitudes are in degrees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import sph_harm_y_all


class SpectralTruncation:
    """Projection from one Gaussian grid on the harmonics n <= `truncation`, evaluated on another grid.

    Winds are projected on vector harmonics (∇Y and k×∇Y), which is the truncation of vorticity and
    divergence: u and v themselves are not smooth at the poles.

    Args:
        source: Gaussian latitudes of the source, in either order; at least `truncation` + 1, which integrate
            the product of two harmonics exactly.
        target: latitudes of the target, in either order.
        longitudes: number of longitudes of the target.
        truncation: the highest total wavenumber N that is kept.

    Raises:
        ValueError: the source is not Gaussian or too coarse.
    """

    def __init__(self, source: NDArray, target: NDArray, longitudes: int, truncation: int) -> None:
        nodes, weights = np.polynomial.legendre.leggauss(len(source))
        sines = np.sin(np.deg2rad(source))
        if not np.allclose(np.sort(sines), nodes, atol=1e-5):
            raise ValueError(f"The {len(source)} source latitudes, {source[0]:.2f} first, are not Gaussian.")
        if len(source) <= truncation or longitudes <= 2 * truncation:
            raise ValueError(
                f"Truncation {truncation} needs a finer grid than {len(source)} to {longitudes}."
            )
        self.longitudes, self.truncation = longitudes, truncation
        weights = 2 * np.pi * weights  # symmetric about the equator: the same in either order
        near, far = _harmonics(source, truncation), _harmonics(target, truncation)
        self.scalar_matrices = np.stack([f[0] @ (n[0].T * weights) for n, f in zip(near, far, strict=True)])
        self.wind_matrices = np.stack(
            [_winds(*f) @ (_winds(*n).conj().T * np.tile(weights, 2)) for n, f in zip(near, far, strict=True)]
        )

    def scalar(self, field: NDArray) -> NDArray:
        """Return `field` (..., latitude, longitude) truncated on the target grid, in its dtype."""
        return self._project(self.scalar_matrices, field).astype(field.dtype)

    def wind(self, u: NDArray, v: NDArray) -> tuple[NDArray, NDArray]:
        """Return the eastward and northward wind (..., latitude, longitude) truncated on the target grid."""
        stacked = self._project(self.wind_matrices, np.concatenate([u, v], axis=-2))
        u_out, v_out = np.split(stacked.astype(u.dtype), 2, axis=-2)
        return u_out, v_out

    def _project(self, matrices: NDArray, field: NDArray) -> NDArray:
        waves = np.fft.rfft(field, axis=-1)[..., : self.truncation + 1] / field.shape[-1]
        return np.fft.irfft(np.einsum("mij,...jm->...im", matrices, waves), self.longitudes) * self.longitudes


def coarsened(field: NDArray, latitudes: int, longitudes: int) -> NDArray:
    """Return the mean of a Gaussian-grid field (latitude, longitude) over the cells of another Gaussian grid.

    Both must have the same order of latitudes. Cells end at the cumulative sums of the Gaussian weights, so
    areas are exact. Use it for fields with jumps, such as a land mask, where a truncated series would ripple.
    """
    rows = _overlap(_gaussian_edges(field.shape[0]), _gaussian_edges(latitudes), shifts=(0.0,))
    source, target = ((np.arange(count + 1) - 0.5) / count for count in (field.shape[1], longitudes))
    columns = _overlap(source, target, shifts=(-1.0, 0.0, 1.0))
    return (rows @ field @ columns.T).astype(field.dtype)


def _harmonics(latitudes: NDArray, truncation: int) -> list[tuple[NDArray, NDArray, NDArray, NDArray]]:
    """Return per zonal wavenumber m: Y, dY/dθ and imY/sinθ as (latitude, n), and n = m … truncation."""
    colatitude = np.deg2rad(90.0 - np.asarray(latitudes, dtype=np.float64))
    values, slopes = sph_harm_y_all(truncation, truncation, colatitude, 0.0, diff_n=1)
    table = []
    for m in range(truncation + 1):
        y, dy = values[m:, m].T.real, slopes[m:, m, :, 0].T.real
        table.append((y, dy, 1j * m * y / np.sin(colatitude)[:, None], np.arange(m, truncation + 1)))
    return table


def _winds(y: NDArray, dy: NDArray, imy: NDArray, n: NDArray) -> NDArray:
    """Return the orthonormal vector harmonics (2 latitudes, 2 n) of one m, divergent, then rotational.

    The rows are u, then v. ∇Y has the components u = imY/sinθ and v = -dY/dθ and the squared norm n(n+1);
    k×∇Y is (-v, u).
    """
    keep = n > 0
    scale = 1 / np.sqrt(n[keep] * (n[keep] + 1.0))
    u, v = imy[:, keep] * scale, -dy[:, keep] * scale
    return np.block([[u, -v], [v, u]])


def _gaussian_edges(count: int) -> NDArray:
    return np.concatenate([[0.0], np.cumsum(np.polynomial.legendre.leggauss(count)[1]) / 2])


def _overlap(source: NDArray, target: NDArray, shifts: tuple[float, ...]) -> NDArray:
    """Return the fraction (target, source) of each target cell that the shifted source cells cover."""
    covered = np.zeros((len(target) - 1, len(source) - 1))
    for shift in shifts:
        lower = np.maximum(target[:-1, None], source[None, :-1] + shift)
        upper = np.minimum(target[1:, None], source[None, 1:] + shift)
        covered += np.maximum(upper - lower, 0.0)
    return covered / np.diff(target)[:, None]
