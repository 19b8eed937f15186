import numpy as np
import pytest
import torch

from diffusion_lab.noise import SphericalNoise, spherical_harmonics
from diffusion_lab.objectives import DiffusionObjective, MSELoss
from diffusion_lab.schedules import LogNormal


def test_weights_by_hand():
    # λ(σ) = (σ² + σ_d²)/(σ σ_d)²: 1/σ_d² + 1/σ².
    sigma = torch.tensor([1.0, 100.0, 0.5])
    torch.testing.assert_close(
        DiffusionObjective().pre_loss_weights(sigma), torch.tensor([2.0, 1.0001, 5.0]), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        DiffusionObjective(sigma_data=0.5).pre_loss_weights(sigma),
        torch.tensor([5.0, 4.0001, 8.0]),
        rtol=1e-6,
        atol=0,
    )


def test_levels_stay_in_range_and_are_uniform_in_the_root():
    target = torch.zeros(200, 1, 20, 1, 1)
    sigma = DiffusionObjective(sigma_max=50, sigma_min=0.1, rho=3).corrupt(target, torch.Generator())[1]
    assert sigma.shape == (200, 1, 20, 1, 1)
    assert 0.1 <= sigma.min() < 0.11
    assert 49 < sigma.max() <= 50
    low, high = 0.1 ** (1 / 3), 50 ** (1 / 3)
    u = ((sigma.double() ** (1 / 3) - low) / (high - low)).flatten().sort().values.numpy()
    # Kolmogorov-Smirnov at the 1e-4 level: sup|F_n - F| < 2.23/√n.
    assert np.abs(u - (np.arange(4000) + 0.5) / 4000).max() < 2.23 / np.sqrt(4000)


def test_corruption_adds_sigma_times_unit_noise_to_each_member():
    target = 3 + torch.randn(3, 1, 2, 500, 4)
    y, sigma = DiffusionObjective().corrupt(target, torch.Generator().manual_seed(1))
    assert len(sigma.unique()) == 6
    noise = ((y - target) / sigma).double()
    # 2000 values a member: the mean has a standard error of 0.022, the variance of √(2/2000) = 0.032.
    torch.testing.assert_close(noise.mean((1, 3, 4)), torch.zeros(3, 2).double(), atol=0.09, rtol=0)
    torch.testing.assert_close(noise.var((3, 4))[:, 0], torch.ones(3, 2).double(), atol=0.13, rtol=0)
    assert torch.corrcoef(noise[:, 0].flatten(2).flatten(0, 1)).fill_diagonal_(0).abs().max() < 0.1


def test_corruption_follows_the_generator_alone():
    target = torch.randn(2, 1, 2, 5, 3)
    first, again, other = (
        DiffusionObjective().corrupt(target, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not (first[0] == other[0]).any()


def test_another_distribution_of_levels():
    objective = DiffusionObjective(levels=LogNormal(P_mean=-1.2, P_std=1e-6))
    sigma = objective.corrupt(torch.zeros(4, 1, 1, 1, 1), torch.Generator())[1]
    torch.testing.assert_close(sigma, torch.full((4, 1, 1, 1, 1), 0.301194))  # exp(-1.2)


@pytest.mark.parametrize("sigma_data", [0, -1, float("nan")])
def test_sigma_data_must_be_positive(sigma_data):
    with pytest.raises(ValueError, match="sigma_data must be positive"):
        DiffusionObjective(sigma_data=sigma_data)


def test_loss_by_hand():
    # Node weights 1, 3 become 1/4, 3/4. Squared errors by node: (1, 4) and (9, 0); with variable weights
    # (2, 1/2): (2, 2) and (18, 0), means 2 and 9: 1/4·2 + 3/4·9 = 7.25; times λ = 2.
    loss = MSELoss(torch.tensor([1.0, 3.0]), [2.0, 0.5])
    target = torch.tensor([[5.0, 7.0], [1.0, 2.0]]).view(1, 1, 1, 2, 2)
    prediction = target + torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    weights = torch.tensor(2.0).view(1, 1, 1, 1, 1)
    torch.testing.assert_close(loss(prediction, target, weights), torch.tensor(14.5))


def test_loss_of_each_sample_has_its_own_level():
    loss = MSELoss(torch.ones(3))
    error = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # (batch, ensemble)
    weights = torch.tensor([[10.0, 1.0], [1.0, 0.5]])
    prediction = error[:, None, :, None, None].expand(2, 1, 2, 3, 5)
    per_sample = loss.per_sample(prediction, torch.zeros(2, 1, 2, 3, 5), weights[:, None, :, None, None])
    torch.testing.assert_close(per_sample, torch.tensor([[10.0, 4.0], [9.0, 8.0]]))
    mean = loss(prediction, torch.zeros(2, 1, 2, 3, 5), weights[:, None, :, None, None])
    torch.testing.assert_close(mean, torch.tensor(31 / 4))


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_a_constant_error_gives_its_square_whatever_the_areas(scale):
    loss = MSELoss(scale * torch.rand(40), [3.0, 1.0, 0.0, 2.0])
    assert loss.node_weights.sum().item() == pytest.approx(1, abs=1e-6)
    shape = (2, 1, 3, 40, 4)
    value = loss(torch.full(shape, 0.7), torch.full(shape, 0.2), torch.ones(2, 1, 3, 1, 1))
    assert value.item() == pytest.approx(0.25 * 6 / 4, rel=1e-5)


def test_loss_is_taken_in_float32():
    """bfloat16 keeps 8 bits: an error of 1e-3 on a value of 1 would vanish."""
    target = torch.full((1, 1, 1, 4, 1), 1.001)
    loss = MSELoss(torch.ones(4))(torch.ones(1, 1, 1, 4, 1).bfloat16(), target, torch.ones(1, 1, 1, 1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize("weights", [[1.0, -0.1], [0.0, 0.0], [1.0, float("nan")]])
def test_impossible_node_weights_are_refused(weights):
    with pytest.raises(ValueError, match="node_weights"):
        MSELoss(torch.tensor(weights))


def test_loss_keeps_its_precision_under_autocast():
    generator = torch.Generator().manual_seed(5)
    prediction, target = torch.randn(2, 2, 1, 1, 9, 3, generator=generator).unbind(0)
    loss = MSELoss(torch.rand(9, generator=generator))
    weights = torch.ones(2, 1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(prediction, target, weights)
    assert mixed.dtype == torch.float32
    assert mixed.item() == loss(prediction, target, weights).item()


def test_corruption_with_isotropic_noise_stays_in_its_band():
    # A Gauss-Legendre × equispaced grid integrates products of harmonics up to degree 7 exactly.
    nodes, quadrature = np.polynomial.legendre.leggauss(8)
    latitudes, longitudes = np.rad2deg(np.arcsin(nodes)), np.arange(16) * 22.5
    latitudes, longitudes = (v.ravel() for v in np.meshgrid(latitudes, longitudes, indexing="ij"))
    weights = torch.from_numpy(np.repeat(quadrature, 16) / 32)
    objective = DiffusionObjective(field=SphericalNoise(latitudes, longitudes, 3))
    target = torch.randn(64, 1, 2, 128, 3)
    y, sigma = objective.corrupt(target, torch.Generator().manual_seed(2))
    noise = ((y - target) / sigma).double()
    power = (spherical_harmonics(latitudes, longitudes, 7).mT * weights @ noise).square().mean((0, 1, 2, 4))
    # 16 modes share the unit variance; 384 draws of each: a relative standard error of √(2/384) = 0.07.
    torch.testing.assert_close(power[:16], torch.full((16,), 1 / 16).double(), rtol=0.3, atol=0)
    assert power[16:].max() < 1e-10
