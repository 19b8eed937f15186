"""The exact solution that the exponential-integrator samplers (DPM-Solver++, DEIS, UniPC) approximate.

In λ = −ln σ the probability-flow ODE dy/dσ = (y − D)/σ is linear but for D: dy/dλ = D − y. Over a step of
h = λ_t − λ_s its solution is (Lu et al. 2022, arXiv:2211.01095, Prop. 4.1)

    y_t = e^(−h) y_s + ∫₀ʰ e^(−τ) D(λ_t − τ) dτ,                                    data prediction

or, with ε = (y − D)/σ in place of D (Zhang & Chen 2023, arXiv:2204.13902, Eq. 10),

    y_t = y_s − σ_s ∫₀ʰ e^(−τ) ε(λ_s + τ) dτ.                                       noise prediction

A multistep solver puts the polynomial through the values it knows in place of D or ε. Both integrals are then
Σ_j w_j D_j with w_j = ∫₀ʰ e^(−τ) ℓ_j(τ) dτ and ℓ_j the Lagrange polynomials of the nodes τ_j, which are
measured from the step's end for the data prediction and from its start for the noise prediction.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

History = Sequence[tuple[float, Tensor]]
"""(σ_j, value at σ_j) of the last calls, the latest last."""


def lagrange_weights(nodes: Sequence[float], h: float) -> list[float]:
    """w_j = ∫₀ʰ e^(−τ) ℓ_j(τ) dτ, exact for every polynomial of a degree below the number of nodes.

    The w_j integrate the powers exactly: Σ_j w_j τ_j^k = ∫₀ʰ e^(−τ) τ^k dτ = k! P(k + 1, h), P
    being the regularised incomplete gamma function. Written so, nothing cancels at small h.

    Args:
        nodes: τ_j, distinct.
        h: Length of the step in λ.

    Returns:
        One weight for each node.
    """
    degrees = torch.arange(len(nodes), dtype=torch.float64)
    tau = torch.tensor(nodes, dtype=torch.float64) / h  # in units of h: well conditioned
    factorials = torch.exp(torch.lgamma(degrees + 1))
    moments = (
        factorials * torch.special.gammainc(degrees + 1, torch.tensor(h, dtype=torch.float64)) / h**degrees
    )
    return torch.linalg.solve(tau ** degrees[:, None], moments).tolist()


def data_step(y: Tensor, sigma: float, sigma_next: float, known: History) -> Tensor:
    """Step y from σ to σ_next with D replaced by the polynomial through the known values (data prediction).

    A step to σ = 0 is infinitely long in λ, where a polynomial means nothing: it takes the last value, y = D.
    """
    if sigma_next == 0:
        return known[-1][1]
    nodes = [math.log(level / sigma_next) for level, _ in known]
    weights = lagrange_weights(nodes, math.log(sigma / sigma_next))
    return sigma_next / sigma * y + _weighted_sum(weights, known)


def noise_step(y: Tensor, sigma: float, sigma_next: float, known: History) -> Tensor:
    """Step y from σ to σ_next with ε replaced by the polynomial through the known values (noise prediction).

    A step to σ = 0 is Euler's, y = D, as in `data_step`.
    """
    if sigma_next == 0:
        return y - sigma * known[-1][1]
    nodes = [math.log(sigma / level) for level, _ in known]
    weights = lagrange_weights(nodes, math.log(sigma / sigma_next))
    return y - sigma * _weighted_sum(weights, known)


def _weighted_sum(weights: Sequence[float], known: History) -> Tensor:
    total = weights[0] * known[0][1]
    for weight, (_, value) in zip(weights[1:], known[1:], strict=True):
        total.add_(value, alpha=weight)  # our own tensor, so no further temporaries
    return total
