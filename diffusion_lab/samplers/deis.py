"""DEIS: exponential integrator of the noise prediction (Zhang & Chen 2023, arXiv:2204.13902)."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from diffusion_lab.samplers.contract import Evaluations, Step, sampler
from diffusion_lab.samplers.exponential import noise_step


@sampler
def deis(denoiser: Evaluations, y: Tensor, sigmas: list[float], order: int = 3) -> Iterator[Step]:
    """Multistep DEIS (their Algorithm 1) with polynomials in log σ: order 1 … 3, N calls.

    ε = (y − D)/σ is extrapolated by the polynomial through its last `order` values, integrated exactly:
    y_t = y_s − σ_s ∫₀ʰ e^(−τ) ε(λ_s + τ) dτ (see `exponential`). Order 1 is `euler`.

    Args:
        order: Number of values that the polynomial goes through, 1 … 3.

    Raises:
        ValueError: If order is not 1, 2 or 3.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order = {order!r} must be 1, 2 or 3")
    known: list[tuple[float, Tensor]] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(y, sigma)
        known = [*known, (sigma, (y - denoised) / sigma)][-order:]
        y = noise_step(y, sigma, sigma_next, known)
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)
