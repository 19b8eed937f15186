"""Stochastic churn (Karras et al. 2022, arXiv:2206.00364, Algorithm 2): noise added before a step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Noise = Callable[[int], Tensor]
"""`noise(draw)` → unit-variance noise of y's shape; step `index` asks for draw `index + 1`."""

GAMMA_MAX = math.sqrt(2) - 1

_REMEDY = "give noise=MemberNoise(seed).at(…) or noise=noise_like(y, generator), both in diffusion_lab.noise"


def effective_churn(S_churn: float, num_steps: int) -> float:
    """The part of S_churn that acts: γ saturates at √2 − 1, so S_churn above (√2 − 1)·N changes nothing.

    Args:
        S_churn: As asked for.
        num_steps: Solver steps N.

    Returns:
        min(S_churn, (√2 − 1)·N).
    """
    return min(S_churn, GAMMA_MAX * num_steps)


def churn_gammas(
    sigmas: list[float], S_churn: float, S_min: float, S_max: float, S_noise: float, noise: Noise | None
) -> list[float]:
    """γ_i of every step: min(S_churn/N, √2 − 1) where S_min ≤ σ_i ≤ S_max, else 0.

    Raises:
        ValueError: If S_churn or S_noise is negative, S_min > S_max, or noise is needed and not given.
    """
    check_amount("S_churn", S_churn)
    check_amount("S_noise", S_noise)
    if not S_min <= S_max:
        raise ValueError(f"S_min = {S_min} must not exceed S_max = {S_max}")
    gamma = min(S_churn / (len(sigmas) - 1), GAMMA_MAX)
    gammas = [gamma if S_min <= sigma <= S_max else 0.0 for sigma in sigmas[:-1]]
    if any(gammas) and noise is None:
        raise ValueError(f"S_churn = {S_churn} adds noise: {_REMEDY}")
    return gammas


def add_churn(
    y: Tensor, sigma: float, gamma: float, S_noise: float, noise: Noise | None, index: int
) -> tuple[Tensor, float]:
    """Raise y from σ to σ̂ = (1 + γ)σ by noise of variance σ̂² − σ² (times S_noise²); nothing where γ = 0."""
    if gamma == 0:
        return y, sigma
    sigma_hat = (1 + gamma) * sigma
    amount = math.sqrt(sigma_hat**2 - sigma**2) * S_noise
    return add_noise(y, amount, noise, index), sigma_hat


def add_noise(y: Tensor, amount: float, noise: Noise | None, index: int) -> Tensor:
    """Add `amount` times the noise of step `index`.

    Raises:
        ValueError: If no noise was given, or its shape is not the state's (members would share it).
    """
    if noise is None:
        raise ValueError(f"this sampler adds noise: {_REMEDY}")
    drawn = noise(index + 1)
    if drawn.shape != y.shape:
        raise ValueError(f"noise({index + 1}) has shape {tuple(drawn.shape)}, y has {tuple(y.shape)}")
    return torch.add(y, drawn.to(y), alpha=amount)


def check_amount(name: str, value: float, limit: float = math.inf) -> None:
    """ValueError unless 0 ≤ value ≤ limit."""
    if not 0 <= value <= limit:
        raise ValueError(f"{name} = {value} must be ≥ 0" + (f" and ≤ {limit}" if limit < math.inf else ""))
