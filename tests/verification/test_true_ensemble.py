"""The comparison with the true ensemble: exact denoisers pass, known faults show."""

import math

import pytest
import torch

from diffusion_lab.acceleration import accelerate
from diffusion_lab.analytic import LinearGaussianForecast
from diffusion_lab.denoisers import ErrorInjector
from diffusion_lab.graphs import multi_scale
from diffusion_lab.graphs.icosahedron import refined_icosahedron
from diffusion_lab.graphs.sphere import to_latitude_longitude
from diffusion_lab.models import Architecture, DiffusionModelEncProcDec
from diffusion_lab.objectives import DiffusionObjective, MSELoss
from diffusion_lab.sampling import PRESETS
from diffusion_lab.verification.true_ensemble import compare_with_truth, expected_distance

RING = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
PROBLEM = LinearGaussianForecast.on_graph(RING, 12)


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
