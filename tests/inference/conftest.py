import pytest
import torch

from diffusion_lab.inference import Forecaster, load_forecaster
from diffusion_lab.training.build import build
from diffusion_lab.training.run import export_release


def released(config, path, perturb_scale):
    """A checkpoint of an untrained network, its weights moved by `perturb_scale` times random numbers."""
    run = build(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in run.task.model.parameters():
            parameter.add_(perturb_scale * torch.randn(parameter.shape, generator=generator))
    return export_release(run, path, {"seed": 0, "command": "made by a test"})


@pytest.fixture(scope="session")
def checkpoint(toy_config, tmp_path_factory):
    """Of a tendency model of t850 and msl; forcings are orography, cos_julian_day and insolation."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return released(toy_config(folder), folder / "toy.safetensors", 0.1)


@pytest.fixture(scope="session")
def blank(toy_config, tmp_path_factory):
    """Of a tendency model with F = 0 of t850, with msl as a diagnostic variable."""
    folder = tmp_path_factory.mktemp("blank")
    config = toy_config(folder, "data.diagnostic=[msl]")
    return load_forecaster(released(config, folder / "blank.safetensors", 0.0), "cpu")


@pytest.fixture(scope="session")
def isotropic(toy_config, tmp_path_factory):
    """Of a tendency model with F = 0 and noise up to wavenumber 3."""
    folder = tmp_path_factory.mktemp("isotropic")
    config = toy_config(folder, "model.model.diffusion.noise_max_wavenumber=3")
    return load_forecaster(released(config, folder / "isotropic.safetensors", 0.0), "cpu")


@pytest.fixture
def forecaster(checkpoint) -> Forecaster:
    return load_forecaster(checkpoint, "cpu")
