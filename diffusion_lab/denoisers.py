"""Denoisers: the one function a sampler needs, and how a network becomes one.

A denoiser returns D(y; σ) = E[clean | y], the best estimate of the clean state in y = clean + σ ε. EDM
preconditioning makes one from a network (Karras et al. 2022, arXiv:2206.00364, Sec. 5). Whatever changes its
result (guidance, deliberate errors for teaching) wraps a denoiser and is itself a denoiser.
"""

import math
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
            sigma: Noise level. From a sampler a 0-d float64 tensor on the CPU, which combines with tensors of
                any device and can be branched on without synchronising; in training (batch, 1, ensemble,
                1, 1) on y's device.

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

    The network's input is c_in y (unit variance at every σ) and c_noise (of σ's shape), in `dtype` and on y's
    device. The rest is done in y's dtype, so a float64 sampler keeps its precision at small σ, where D
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
        c_noise = c_noise.to(y.device, self.dtype, non_blocking=True)
        output = self.network((c_in * y).to(self.dtype), c_noise)
        return c_skip * y + c_out * output.to(y.dtype)


def check_sigma(sigma: Tensor, y: Tensor) -> None:
    """Check that σ cannot broadcast along the wrong axis of y (for example (8,) along 8 variables).

    Raises:
        ValueError: Unless sigma is 0-d or has y's number of dimensions, each of them 1 or equal to y's.
    """
    fits = sigma.ndim == y.ndim and all(n in (1, m) for n, m in zip(sigma.shape, y.shape, strict=True))
    if sigma.ndim != 0 and not fits:
        raise ValueError(
            f"sigma has shape {tuple(sigma.shape)} for y of shape {tuple(y.shape)}; give a 0-d tensor (one "
            "level for all) or one dimension for each of y's, of size 1 or y's: (batch, 1, ensemble, 1, 1)"
        )


class Autoguidance:
    """D_w = D_weak + w (D − D_weak): the model guided by a weaker version of itself.

    Karras et al. 2024 (arXiv:2406.02507, Eq. 5). Where both err the same way, the difference points out of
    the error. w = 1 is the model alone; above 1, errors shrink and so does the spread. Guiding only in an
    interval of σ (Kynkäänniemi et al. 2024, arXiv:2404.07724) keeps the spread and saves calls.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        weak: Denoiser,
        weight: float,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
    ) -> None:
        """Guide `denoiser`.

        Args:
            denoiser: D, the good model.
            weak: D_weak: fewer training steps or parameters, the same data and conditioning.
            weight: w, usually 1 … 3.
            sigma_min: Lowest level that is guided.
            sigma_max: Highest level that is guided.

        Raises:
            ValueError: If weight is not finite, or the interval is empty.
        """
        if not math.isfinite(weight) or not sigma_min <= sigma_max:
            raise ValueError(
                f"need finite weight, sigma_min ≤ sigma_max, got {weight}, {sigma_min}, {sigma_max}"
            )
        self.denoiser, self.weak, self.weight = denoiser, weak, weight
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Denoise y (…) at the 0-d level of a sampler; outside the interval the weak model is not called."""
        denoised = self.denoiser(y, sigma)
        if not self.sigma_min <= sigma.item() <= self.sigma_max:
            return denoised
        weak = self.weak(y, sigma)
        return weak + self.weight * (denoised - weak)


class CallCounter:
    """Counts the calls of a denoiser (the network calls, if it wraps the network directly)."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.calls = 0

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Denoise and count."""
        self.calls += 1
        return self.denoiser(y, sigma)


class ErrorInjector:
    """A denoiser with known faults, to study their effect on ensembles and how samplers can correct them.

    Networks err towards the mean (`shrink`: too little spread) and towards smooth fields (`smooth`: lost
    detail).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        shrink: float = 0.0,
        mean: Tensor | float = 0.0,
        smooth: float = 0.0,
        averaging: Tensor | None = None,
    ) -> None:
        """Add faults to `denoiser`.

        Args:
            denoiser: D.
            shrink: Fraction by which D − mean is reduced, 0 … 1.
            mean: What D shrinks towards, broadcastable to y.
            smooth: Fraction of D that is replaced by its neighbourhood mean, 0 … 1.
            averaging: (grid, grid) matrix whose rows sum to 1, such as a graph's normalised adjacency; it
                acts on the grid axis of y, the second to last.

        Raises:
            ValueError: If a fraction is outside 0 … 1, or smoothing has no averaging matrix.
        """
        if not (0 <= shrink <= 1 and 0 <= smooth <= 1):
            raise ValueError(f"shrink = {shrink} and smooth = {smooth} must lie in 0 … 1")
        if smooth > 0 and averaging is None:
            raise ValueError(f"smooth = {smooth} needs averaging, a (grid, grid) matrix whose rows sum to 1")
        self.denoiser, self.shrink, self.mean = denoiser, shrink, mean
        self.smooth, self.averaging = smooth, averaging

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Denoise y (…, grid, variable), with the faults."""
        denoised = self.denoiser(y, sigma)
        if self.averaging is not None:
            mixed = self.averaging.to(denoised) @ denoised
            denoised = denoised + self.smooth * (mixed - denoised)
        return denoised + self.shrink * (self.mean - denoised)
