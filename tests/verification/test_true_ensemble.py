"""Sampled ensembles against the true one of a linear-Gaussian problem: exact denoisers pass, faults show."""

import math
from types import SimpleNamespace

import pytest
import torch

from diffusion_lab.acceleration import accelerate
from diffusion_lab.analytic import LinearGaussianForecast
from diffusion_lab.denoisers import ErrorInjector
from diffusion_lab.graphs import multi_scale
from diffusion_lab.graphs.icosahedron import refined_icosahedron
from diffusion_lab.graphs.sphere import to_latitude_longitude
from diffusion_lab.models import Architecture, DiffusionModelEncProcDec
from diffusion_lab.noise import noise_like
from diffusion_lab.objectives import DiffusionObjective, MSELoss
from diffusion_lab.sampling import PRESETS
from diffusion_lab.verification.ensemble import fair_crps

RING = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
PROBLEM = LinearGaussianForecast.on_graph(RING, 12)


def compare_with_truth(denoiser_of, problem, settings=PRESETS["guide"], *, starts, members):
    """Moments and fair CRPS of ensembles one step ahead, the CRPS in its exact expectation over the truth."""
    generator = torch.Generator().manual_seed(0)
    nodes = len(problem.propagator)
    x = problem.climate().sample((starts, 1, 1, nodes, 1), generator)
    noise = noise_like(torch.empty(starts, 1, members, nodes, 1), generator)
    forecast = settings.sample(denoiser_of(x.float()), noise).double()
    truth = problem.forecast(x)
    deviation = (forecast - forecast.mean(2, keepdim=True))[:, 0, :, :, 0]
    covariance = torch.einsum("bei,bej->ij", deviation, deviation) / (starts * (members - 1))
    squared = (forecast.mean(2, keepdim=True) - truth.mean).square().mean()
    variance = truth.covariance.diagonal()[:, None]
    to_truth = expected_distance(forecast - truth.mean, variance.sqrt()).mean(2)
    # Against a truth of zero the score is E|x| less half the members' distance from each other.
    within = forecast.abs().mean(2) - fair_crps(forecast, torch.zeros_like(forecast[:, :, 0]), dim=2)
    return SimpleNamespace(
        mean_error=math.sqrt(max(0.0, (squared - covariance.diagonal().mean() / members).item())),
        covariance=covariance,
        true_covariance=truth.covariance,
        crps=(to_truth - within).mean((0, 1, 3)),
        best_crps=problem.best_crps(),
    )


def expected_distance(x, stdev):
    """E|x − y| for y ~ N(0, stdev²): stdev (z (2Φ(z) − 1) + 2φ(z)) with z = x/stdev."""
    z = x / stdev
    return stdev * (z * torch.erf(z / math.sqrt(2)) + math.sqrt(2 / math.pi) * torch.exp(-(z**2) / 2))


def test_the_exact_denoiser_samples_the_true_ensemble():
    result = compare_with_truth(PROBLEM.denoiser, PROBLEM, starts=32, members=64)
    assert result.mean_error < 0.03
    assert torch.allclose(result.covariance, result.true_covariance, atol=0.02)
    assert (result.crps / result.best_crps).mean().item() == pytest.approx(1, abs=0.01)


def test_a_shrunk_ensemble_has_less_variance_and_a_worse_score():
    def spoiled(x):
        return ErrorInjector(PROBLEM.denoiser(x), shrink=0.2, mean=PROBLEM.propagator @ x.double())

    result = compare_with_truth(spoiled, PROBLEM, starts=32, members=64)
    assert result.covariance.trace() < 0.9 * result.true_covariance.trace()
    assert result.crps.mean() > 1.005 * result.best_crps.mean()


def test_distance_to_a_normal_truth():
    y = 0.7 * torch.randn(400000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for x in (-1.0, 0.0, 2.0):
        exact = expected_distance(torch.tensor(x).double(), torch.tensor(0.7).double())
        assert (x - y).abs().mean().item() == pytest.approx(exact.item(), abs=3e-3)


STEPS, RATE = 500, 5e-3


@pytest.fixture(scope="module")
def trained():
    """A network of the library that saw 2,000 days, each with one that followed, and their problem."""
    graph = multi_scale(*to_latitude_longitude(refined_icosahedron(2)[0]), refinement=2)
    nodes = graph["data"].num_nodes
    problem = LinearGaussianForecast.on_graph(graph["hidden", "to", "hidden"].edge_index, nodes)
    torch.manual_seed(0)
    sizes = Architecture(num_channels=32, num_layers=1, num_heads=1, mlp_ratio=2, multistep_input=1)
    model = DiffusionModelEncProcDec(graph, 1, 1, 1, sizes)
    accelerate(model)
    objective, loss = DiffusionObjective(), MSELoss(torch.ones(nodes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    generator, climate = torch.Generator().manual_seed(1), problem.climate()
    for step in range(STEPS):
        x = climate.sample((4, 1, 1, nodes, 1), generator)
        target = problem.forecast(x).sample(x.shape, generator).float()
        y, sigma = objective.corrupt(target, generator)
        optimizer.zero_grad()
        loss(model(x.float(), y, sigma), target, objective.pre_loss_weights(sigma)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        warmup, cosine = min(1, (step + 1) / 50), (1 + math.cos(math.pi * step / STEPS)) / 2
        optimizer.param_groups[0]["lr"] = RATE * warmup * cosine
        optimizer.step()
    return model, problem


def test_a_trained_forecaster_has_nearly_the_true_ensemble(trained):
    """It never saw two histories of one start, and yet learnt how uncertain they are."""
    model, problem = trained
    settings = PRESETS["guide"].override({"num_steps": 10, "sigma_max": 80.0}, {"sampler": "deis"})
    result = compare_with_truth(model.denoiser, problem, settings, starts=16, members=16)
    stdev = result.true_covariance.diagonal().mean().sqrt().item()
    neighbours = (problem.propagator > 0) & ~torch.eye(len(problem.propagator)).bool()
    true, learnt = (
        (covariance[neighbours].mean() / covariance.diagonal().mean()).item()
        for covariance in (result.true_covariance, result.covariance)
    )
    assert result.mean_error < 0.2 * stdev  # that of no change is about 0.5
    assert (result.covariance.trace() / result.true_covariance.trace()).item() == pytest.approx(1, abs=0.15)
    assert learnt > 0.5 * true  # members are fields; what goes with what takes longest to learn
    assert result.crps.mean() < 1.02 * result.best_crps.mean()
