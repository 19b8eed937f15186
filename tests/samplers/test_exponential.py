"""Multistep weights against numerical integrals, and steps that must be exact."""

import math

import pytest
import torch

from diffusion_lab.samplers.exponential import data_step, lagrange_weights, noise_step

NODES = [[0.4], [0.4, 0.9], [0.4, 0.9, 2.0], [0.0, 0.4, 0.9, 2.0], [0.0, -0.3, -1.1]]


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("h", [0.01, 0.4, 3.0])
def test_weights_integrate_the_lagrange_polynomials(nodes, h):
    from scipy.integrate import quad

    def integrand(tau, j):
        others = [node for k, node in enumerate(nodes) if k != j]
        return math.exp(-tau) * math.prod((tau - node) / (nodes[j] - node) for node in others)

    for j, weight in enumerate(lagrange_weights(nodes, h)):
        expected, _ = quad(integrand, 0, h, args=(j,), epsabs=1e-13)
        assert weight == pytest.approx(expected, rel=1e-8, abs=1e-13)


def test_weights_keep_their_precision_in_tiny_steps():
    # As h → 0 these are the Adams-Bashforth weights h·(23, −16, 5)/12 (1 + O(h)).
    h = 1e-6
    assert lagrange_weights([0.0, -h, -2 * h], h) == pytest.approx(
        [23 * h / 12, -16 * h / 12, 5 * h / 12], rel=1e-5
    )


def cubic(lam):
    return 1 - 2 * lam + 0.5 * lam**2 + 0.1 * lam**3


def test_a_step_is_exact_where_the_prediction_is_a_polynomial_of_lambda():
    from scipy.integrate import solve_ivp

    known = [(sigma, torch.tensor(cubic(-math.log(sigma)))) for sigma in (9.0, 5.0, 3.0, 1.0)]
    start, stop = -math.log(3.0), -math.log(1.0)
    data = solve_ivp(lambda lam, y: cubic(lam) - y, (start, stop), [2.0], rtol=1e-12, atol=1e-12).y[0, -1]
    noise = solve_ivp(
        lambda lam, y: -math.exp(-lam) * cubic(lam), (start, stop), [2.0], rtol=1e-12, atol=1e-12
    ).y[0, -1]
    y = torch.tensor(2.0, dtype=torch.float64)
    # float32 values: the tolerance is theirs.
    assert data_step(y, 3.0, 1.0, known).item() == pytest.approx(data, rel=1e-6)
    assert noise_step(y, 3.0, 1.0, known).item() == pytest.approx(noise, rel=1e-6)
