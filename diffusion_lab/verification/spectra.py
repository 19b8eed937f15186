"""Power spectra of global fields.

    spectrum = PowerSpectrum(latitudes, longitudes)
    power = spectrum(members)                       # (16, 2048) -> (16, 22): wavenumbers 0 … 21

A field is expanded in the spherical harmonics of `noise.spherical_harmonics`, f = Σ a_lm Y_lm, which have
mean square 1. The power at total wavenumber l, Σ_m a_lm², is the part of the mean square of f at that scale.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from diffusion_lab.graphs import area_weights
from diffusion_lab.graphs.sphere import gaussian_latitudes
from diffusion_lab.noise import spherical_harmonics

_MOST_WAVENUMBERS = 40  # by default; on a fine grid, more would need gigabytes for the harmonics
_WORST_GRAM = 0.1  # smallest eigenvalue allowed; 1 for harmonics that are orthonormal on the nodes


class PowerSpectrum:
    """Power at each total wavenumber of fields on nodes that cover the sphere.

    The coefficients are a weighted least-squares fit, a = (Yᵀ W Y)⁻¹ Yᵀ W f: exact for a field without power
    above `max_wavenumber`, on any nodes that resolve it. On a Gaussian grid W are the quadrature weights,
    YᵀWY = 1, and the fit is the usual spherical harmonic transform.
    """

    def __init__(
        self, latitudes: ArrayLike, longitudes: ArrayLike, max_wavenumber: int | None = None
    ) -> None:
        """Compute the fit for any number of fields.

        Args:
            latitudes: degrees north (grid,).
            longitudes: degrees east (grid,).
            max_wavenumber: highest total wavenumber L; by default (L + 1)² = grid / 4, which gives 21 for
                64×32 nodes, and at most 40.

        Raises:
            ValueError: if the nodes do not determine the harmonics, as in a limited area.
        """
        latitudes, longitudes = np.asarray(latitudes, np.float64), np.asarray(longitudes, np.float64)
        if max_wavenumber is None:
            max_wavenumber = min(int(np.sqrt(latitudes.size / 4)) - 1, _MOST_WAVENUMBERS)
        harmonics = spherical_harmonics(
            torch.from_numpy(latitudes), torch.from_numpy(longitudes), max_wavenumber
        )
        weighted = harmonics * torch.from_numpy(quadrature_weights(latitudes, longitudes))[:, None]
        gram = harmonics.T @ weighted
        if torch.linalg.eigvalsh(gram)[0] < _WORST_GRAM:
            raise ValueError(
                f"{latitudes.size} nodes do not determine the harmonics to wavenumber {max_wavenumber}; "
                "take a lower max_wavenumber (a limited area has no spectrum: its nodes leave a hole)"
            )
        self.wavenumbers = np.arange(max_wavenumber + 1)
        self._analysis = torch.linalg.solve(gram, weighted.T).T.contiguous()  # (grid, harmonic)

    def __call__(self, fields: Tensor) -> Tensor:
        """Power of fields (…, grid) at each wavenumber, float64 (…, L + 1), in their units squared.

        The sum over all wavenumbers is the mean square over the sphere (Parseval), and from 1 the variance.
        Fields with missing values have NaN.
        """
        coefficients = fields.double() @ self._analysis.to(fields.device)
        power = coefficients.square().split([2 * n + 1 for n in self.wavenumbers.tolist()], dim=-1)
        return torch.stack([part.sum(-1) for part in power], dim=-1)


def quadrature_weights(latitudes: ArrayLike, longitudes: ArrayLike) -> NDArray[np.float64]:
    """Weights (grid,), summing to 1, for means over the sphere.

    Gauss-Legendre weights on a full or reduced Gaussian grid, exact for harmonics up to twice the number of
    latitudes minus one; cell areas for any other nodes.
    """
    latitudes, longitudes = np.asarray(latitudes, np.float64), np.asarray(longitudes, np.float64)
    rows, row, count = np.unique(latitudes.round(4), return_inverse=True, return_counts=True)
    # No Gaussian grid has thousands of rows, but scattered nodes do. Files round to 0.001 degrees.
    if (
        1 < len(rows) < 3000
        and np.allclose(rows[::-1], gaussian_latitudes(len(rows)), atol=2e-3)
        and all(_evenly_spaced(longitudes[row == number]) for number in range(len(rows)))
    ):
        weights = np.polynomial.legendre.leggauss(len(rows))[1] / 2
        return (weights / count)[row]
    return area_weights(latitudes, longitudes)


def _evenly_spaced(longitudes: NDArray[np.float64]) -> bool:
    """Whether longitudes divide the circle into equal parts."""
    ordered = np.sort(longitudes % 360)
    return np.allclose(np.diff(ordered, append=ordered[0] + 360), 360 / len(ordered), atol=2e-3)
