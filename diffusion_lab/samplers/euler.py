"""Euler's method, plain and ancestral."""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lab.samplers.churn import Noise, add_noise, check_amount
from diffusion_lab.samplers.contract import Evaluations, Step, sampler


@sampler
def euler(denoiser: Evaluations, y: Tensor, sigmas: list[float]) -> Iterator[Step]:
    """Euler steps along dy/dσ = (y − D)/σ: first order, N calls.

    The slope is Karras et al. 2022 (arXiv:2206.00364), Eq. 3. With D held fixed over a step, the exact
    solution is the same y_next = D + (σ_next/σ)(y − D): this is DDIM, too.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(y, sigma)
        y = torch.lerp(denoised, y, sigma_next / sigma)  # D + (σ_next/σ)(y − D)
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)


@sampler
def euler_ancestral(
    denoiser: Evaluations,
    y: Tensor,
    sigmas: list[float],
    eta: float = 1.0,
    S_noise: float = 1.0,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Euler steps that go below the next level and come back up with fresh noise: first order, N calls.

    Given the clean state, the posterior of y at σ_next has mean D + (σ_next/σ)² (y − D) and variance
    σ_up² = σ_next² (σ² − σ_next²)/σ² (DDPM's ancestral sampling, Ho et al. 2020, arXiv:2006.11239, Eq. 7). In
    general, any σ_up followed from σ_down = √(σ_next² − σ_up²) keeps the noise at σ_next in all; `eta` scales
    σ_up from 0 (`euler`) to the posterior's (Song et al. 2021, arXiv:2010.02502, Eq. 16).

    Args:
        eta: Part of the posterior's standard deviation that is drawn anew, 0 … 1.
        S_noise: Standard deviation of the added noise.
        noise: `noise(draw)`, asked in every step but the one to σ = 0.

    Raises:
        ValueError: If an option is out of range, or no noise is given.
    """
    check_amount("eta", eta, 1.0)
    check_amount("S_noise", S_noise)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(y, sigma)
        sigma_up = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
        sigma_down = math.sqrt(sigma_next**2 - sigma_up**2)
        y = torch.lerp(denoised, y, sigma_down / sigma)
        if sigma_up > 0:
            y = add_noise(y, sigma_up * S_noise, noise, i)
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)
