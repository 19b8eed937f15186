"""Heun's method with churn: the sampler of EDM (Karras et al. 2022, arXiv:2206.00364)."""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lab.samplers.churn import Noise, add_churn, churn_gammas
from diffusion_lab.samplers.contract import Evaluations, Step, sampler


@sampler
def heun(
    denoiser: Evaluations,
    y: Tensor,
    sigmas: list[float],
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Algorithm 2 of the EDM paper: second order, 2N − 1 calls (the step to σ = 0 is Euler's).

    Args:
        S_churn: Amount of noise added over the trajectory; acts up to (√2 − 1)·N (`effective_churn`).
        S_min: Lowest level that is churned.
        S_max: Highest level that is churned.
        S_noise: Standard deviation of the added noise; above 1 compensates for detail lost in denoising.
        noise: `noise(draw)`, asked only in steps with γ > 0.

    Raises:
        ValueError: If an option is out of range, or churn acts and no noise is given.
    """
    gammas = churn_gammas(sigmas, S_churn, S_min, S_max, S_noise, noise)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        y, sigma = add_churn(y, sigma, gammas[i], S_noise, noise, i)
        denoised = denoiser(y, sigma)
        slope = (y - denoised).div_(sigma)  # dy/dσ, Eq. 3
        y_next = torch.add(y, slope, alpha=sigma_next - sigma)
        if sigma_next > 0:
            slope_next = (y_next - denoiser(y_next, sigma_next)).div_(sigma_next)
            y_next = torch.add(y, slope_next.add_(slope), alpha=(sigma_next - sigma) / 2)
        y = y_next
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)
