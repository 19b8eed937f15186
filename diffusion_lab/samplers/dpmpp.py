"""DPM-Solver++: exponential integrators of the data prediction (Lu et al. 2022, arXiv:2211.01095).

All solve y_t = e^(−h) y_s + ∫₀ʰ e^(−τ) D(λ_t − τ) dτ (see `exponential`), each with its own approximation
of D over the step. A step with D held fixed, y_t = D + e^(−h) (y_s − D), is
`torch.lerp(D, y, sigma_next / sigma)`. The step to σ = 0, infinitely long in λ = −ln σ, takes D as constant:
y = D.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lab.samplers.churn import Noise, add_churn, add_noise, check_amount, churn_gammas
from diffusion_lab.samplers.contract import Evaluations, Step, sampler
from diffusion_lab.samplers.exponential import data_step


@sampler
def dpmpp_2s(
    denoiser: Evaluations,
    y: Tensor,
    sigmas: list[float],
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2S) with churn, the sampler of GenCast: second order, 2N − 1 calls.

    A step of constant D, y_t = e^(−h) y + (1 − e^(−h)) D, to the middle in λ (the geometric mean of the
    levels); then one over the whole step with D from there: the midpoint rule (Lu et al., Algorithm 1,
    r = 1/2). Options and errors of churn as in `heun`; GenCast's values are `sampling.PRESETS["gencast"]`.
    """
    gammas = churn_gammas(sigmas, S_churn, S_min, S_max, S_noise, noise)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        y, sigma = add_churn(y, sigma, gammas[i], S_noise, noise, i)
        denoised = middle = denoiser(y, sigma)
        if sigma_next > 0:
            sigma_mid = math.sqrt(sigma * sigma_next)
            middle = denoiser(torch.lerp(denoised, y, sigma_mid / sigma), sigma_mid)
        y = torch.lerp(middle, y, sigma_next / sigma)
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)


@sampler
def dpmpp_2m(denoiser: Evaluations, y: Tensor, sigmas: list[float]) -> Iterator[Step]:
    """DPM-Solver++(2M): second order with one call per step, N calls.

    The line through the last two values, h_last apart in λ, is taken at the middle of the step:
    D_mid = D + (h/2)·(D − D_last)/h_last. Held fixed it gives y_t = e^(−h) y + (1 − e^(−h)) D_mid (Lu et al.,
    Algorithm 2).
    """
    last: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = middle = denoiser(y, sigma)
        if last is not None and sigma_next > 0:
            h, h_last = math.log(sigma / sigma_next), math.log(sigmas[i - 1] / sigma)
            middle = torch.lerp(last, denoised, 1 + h / (2 * h_last))
        y = torch.lerp(middle, y, sigma_next / sigma)
        last = denoised
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)


@sampler
def dpmpp_3m(denoiser: Evaluations, y: Tensor, sigmas: list[float]) -> Iterator[Step]:
    """DPM-Solver++(3M): third order with one call per step, N calls.

    D is the parabola through the last three values, integrated exactly (`exponential.lagrange_weights`). The
    common form with φ-functions multiplies its second difference by φ₃; from ∫₀ʰ e^(−τ) τ² dτ it is 2 φ₃.
    """
    known: list[tuple[float, Tensor]] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(y, sigma)
        known = [*known[-2:], (sigma, denoised)]
        y = data_step(y, sigma, sigma_next, known)
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)


@sampler
def dpmpp_2m_sde(
    denoiser: Evaluations,
    y: Tensor,
    sigmas: list[float],
    eta: float = 1.0,
    S_noise: float = 1.0,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): `dpmpp_2m` for the reverse SDE, N calls.

    dy = (1 + η)(D − y) dλ + √(2η) σ dw has the marginals of the ODE for every η ≥ 0 (η = 1: the reverse SDE
    of Song et al. 2021, arXiv:2011.13456). It is linear too: with h' = (1 + η) h,

        y_t = e^(−h') y + (1 − e^(−h')) D + σ_t √(1 − e^(−2ηh)) ε,

    the last from ∫ e^(−2(1+η)(λ_t−λ)) 2η σ² dλ; D at the middle of the step as in `dpmpp_2m` (Lu et al. 2022,
    App. B.3 for η = 1).

    Args:
        eta: η ≥ 0, how fast noise is exchanged; 0 is `dpmpp_2m`.
        S_noise: Standard deviation of the added noise.
        noise: `noise(draw)`, asked in every step but the one to σ = 0.

    Raises:
        ValueError: If an option is out of range, or no noise is given.
    """
    check_amount("eta", eta)
    check_amount("S_noise", S_noise)
    last: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = middle = denoiser(y, sigma)
        if last is not None and sigma_next > 0:
            h, h_last = math.log(sigma / sigma_next), math.log(sigmas[i - 1] / sigma)
            middle = torch.lerp(last, denoised, 1 + h / (2 * h_last))
        y = torch.lerp(middle, y, (sigma_next / sigma) ** (1 + eta))
        if eta > 0 and sigma_next > 0:
            amount = sigma_next * math.sqrt(1 - (sigma_next / sigma) ** (2 * eta))
            y = add_noise(y, amount * S_noise, noise, i)
        last = denoised
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)
