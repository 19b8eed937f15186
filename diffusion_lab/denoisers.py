"""Denoisers: the one function a sampler needs, and how a network becomes one.

A denoiser answers D(y; σ) = E[clean | y], the best estimate of the clean state behind y = clean + σ ε.
A network is turned into one by EDM preconditioning (Karras et al. 2022, arXiv:2206.00364, Sec. 5); what
changes a denoiser's answer (guidance, errors put in for teaching) wraps one and is one again.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Denoiser(Protocol):
    """D(y; σ), the expectation of the clean state given the noisy one."""

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Denoise.

        Args:
            y: Noisy state, (batch, time, ensemble, grid, variable). Samplers pass float64.
            sigma: Noise level on y's device: 0-d float64 from a sampler, or (batch, 1, ensemble, 1, 1).

        Returns:
            The denoised state, of y's shape. Casting to the network's dtype happens inside.
        """
        ...


def edm_coefficients(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """EDM preconditioning (Karras et al. 2022, Table 1, derived in their App. B.6).

    Args:
        sigma: Noise level σ > 0, any shape.
        sigma_data: Standard deviation of the clean data.

    Returns:
        c_skip = σd²/(σ² + σd²), c_out = σ σd/√(σ² + σd²), c_in = 1/√(σ² + σd²), c_noise = ln(σ)/4,
        in sigma's shape and dtype.
    """
    variance = sigma**2 + sigma_data**2
    c_in = variance.rsqrt()
    return sigma_data**2 / variance, sigma * sigma_data * c_in, c_in, sigma.log() / 4


class EDMDenoiser:
    """D(y; σ) = c_skip y + c_out F(c_in y, c_noise): a network behind EDM preconditioning (Eq. 7).

    The network's input is c_in y in `dtype` (unit variance at every σ) and c_noise, in `dtype` and of σ's
    shape. The rest is done in y's dtype, so a float64 sampler keeps its precision at small σ, where D
    is nearly y.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        sigma_data: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Wrap a network.

        Args:
            network: F(c_in y, c_noise) → tensor of y's shape.
            sigma_data: Standard deviation of the clean data.
            dtype: The dtype the network is called in.
        """
        self.network = network
        self.sigma_data = sigma_data
        self.dtype = dtype

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Denoise y (…); sigma is 0-d or has y's number of dimensions, each 1 or y's.

        Raises:
            ValueError: If sigma has another shape.
        """
        check_sigma(sigma, y)
        c_skip, c_out, c_in, c_noise = edm_coefficients(sigma, self.sigma_data)
        output = self.network((c_in * y).to(self.dtype), c_noise.to(self.dtype))
        return c_skip * y + c_out * output.to(y.dtype)


def check_sigma(sigma: Tensor, y: Tensor) -> None:
    """Refuse a σ that would broadcast along the wrong axis of y (a (8,) σ along 8 variables, say).

    Raises:
        ValueError: Unless sigma is 0-d or has y's number of dimensions, each of them 1 or equal to y's.
    """
    fits = sigma.ndim == y.ndim and all(n in (1, m) for n, m in zip(sigma.shape, y.shape, strict=True))
    if sigma.ndim != 0 and not fits:
        raise ValueError(
            f"sigma has shape {tuple(sigma.shape)} for y of shape {tuple(y.shape)}; give a 0-d tensor (one "
            "level for all) or one dimension for each of y's, of size 1 or y's: (batch, 1, ensemble, 1, 1)"
        )
