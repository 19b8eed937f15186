"""Stochastic churn (Karras et al. 2022, arXiv:2206.00364, Algorithm 2): noise added before a step."""

import math
from collections.abc import Callable

from torch import Tensor

Noise = Callable[[int], Tensor]
"""`noise(draw)` → unit-variance noise of y's shape; step `index` asks for draw `index + 1`."""

GAMMA_MAX = math.sqrt(2) - 1


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
    sigmas: list[float], S_churn: float, S_min: float, S_max: float, noise: Noise | None
) -> list[float]:
    """γ_i of every step: min(S_churn/N, √2 − 1) where S_min ≤ σ_i ≤ S_max, else 0.

    Raises:
        ValueError: If S_churn < 0 or S_min > S_max, or if noise is needed and not given.
    """
    if not S_churn >= 0 or not S_min <= S_max:
        raise ValueError(f"need S_churn ≥ 0 and S_min ≤ S_max, got {S_churn = }, {S_min = }, {S_max = }")
    num_steps = len(sigmas) - 1
    gamma = min(S_churn / num_steps, GAMMA_MAX)
    gammas = [gamma if S_min <= sigma <= S_max else 0.0 for sigma in sigmas[:-1]]
    if any(gammas) and noise is None:
        raise ValueError(
            f"S_churn = {S_churn} adds noise: give noise=MemberNoise(seed).at(…), or "
            "noise=noise_like(y, generator) (diffusion_lab.noise)"
        )
    return gammas


def draw_noise(noise: Noise | None, index: int, like: Tensor) -> Tensor:
    """The noise of step `index`, in the state's dtype.

    Raises:
        ValueError: If no noise was given, or its shape is not the state's (members would share it).
    """
    if noise is None:
        raise ValueError(
            "this sampler adds noise: give noise=MemberNoise(seed).at(…), or noise=noise_like(y, generator) "
            "(diffusion_lab.noise)"
        )
    drawn = noise(index + 1)
    if drawn.shape != like.shape:
        raise ValueError(f"noise({index + 1}) has shape {tuple(drawn.shape)}, y has {tuple(like.shape)}")
    return drawn.to(like)
