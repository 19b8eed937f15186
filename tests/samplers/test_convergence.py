"""Order and accuracy on targets whose probability flow is known."""

import functools
import math

import pytest
import torch

from diffusion_lab.analytic import GaussianMixture
from diffusion_lab.samplers import deis, dpmpp_2m, dpmpp_2s, dpmpp_3m, euler, heun, sample, unipc
from diffusion_lab.schedules import karras

MIXTURE = GaussianMixture([0.3, 0.5, 0.2], [-1.0, 0.2, 1.5], [0.3, 0.2, 0.25])
QUANTILES = (torch.arange(512, dtype=torch.float64) + 0.5) / 512


@functools.cache
def quantiles(sigma):
    return MIXTURE.quantile(QUANTILES, sigma)


@pytest.mark.parametrize(
    ("sampler", "options", "order"),
    [
        (euler, {}, 0.9),
        (heun, {}, 1.9),
        (dpmpp_2s, {}, 1.9),
        (dpmpp_2m, {}, 1.9),
        (unipc, {"order": 2}, 2.8),
        (dpmpp_3m, {}, 2.8),
        (deis, {"order": 1}, 0.9),
        (deis, {"order": 2}, 1.9),
        (deis, {"order": 3}, 2.8),
        (unipc, {"order": 3}, 3.8),
    ],
)
def test_order_of_convergence(sampler, options, order):
    """The schedule ends at σ_min: the step to 0 is first order by nature, and its error is σ_min's."""
    errors = []
    for num_steps in (256, 512):
        levels = karras(num_steps, 80.0, 0.002)[:-1]
        final = sample(sampler, MIXTURE, quantiles(80.0), levels, **options)
        errors.append((final - quantiles(0.002)).square().mean().sqrt().item())
    assert math.log2(errors[0] / errors[1]) > order


@pytest.mark.parametrize(
    ("sampler", "num_steps", "expected"),
    [
        (heun, 5, 2.0630359904),
        (heun, 20, 1.0302952209),
        (dpmpp_2m, 5, 0.9410091612),
        (dpmpp_2m, 20, 1.0324575671),
    ],
)
def test_known_values(sampler, num_steps, expected):
    y = torch.tensor(100.0)
    final = sample(sampler, lambda y, sigma: y / (1 + sigma**2), y, karras(num_steps, 100.0, 0.02))
    assert final.item() == pytest.approx(expected, abs=1e-6)


def wasserstein(sampler, calls, **options):
    """W2 between the mixture and what its exact noisy quantiles at σ = 80 become."""
    num_steps = (calls + 1) // 2 if sampler in (heun, dpmpp_2s) else calls
    final = sample(sampler, MIXTURE, quantiles(80.0), karras(num_steps, 80.0, 0.002), **options)
    return (final.sort().values - quantiles(0.0)).square().mean().sqrt().item(), (
        final.std() / quantiles(0.0).std()
    ).item()


@pytest.mark.parametrize(
    ("calls", "limit", "spread"), [(9, 0.036, 0.01), (17, 0.012, 0.01), (35, 0.0025, 0.002), (79, 3e-4, 5e-4)]
)
def test_deis_needs_few_calls(calls, limit, spread):
    distance, ratio = wasserstein(deis, calls, order=3)
    assert distance < limit
    assert ratio == pytest.approx(1, abs=spread)


@pytest.mark.parametrize(("calls", "expected"), [(9, 1.0), (17, 0.2), (35, 0.05), (79, 0.01)])
def test_heun_is_as_good_as_the_paper_s(calls, expected):
    assert wasserstein(heun, calls)[0] < 1.1 * expected


@pytest.mark.parametrize(("sampler", "named"), [(deis, "1, 2 or 3"), (unipc, "2 or 3")])
def test_unknown_orders_are_refused(sampler, named):
    with pytest.raises(ValueError, match=named):
        sample(sampler, MIXTURE, torch.ones(3), karras(5, 80.0, 0.02), order=4)
