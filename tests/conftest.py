"""A small atmosphere, a small graph and small networks for the tests of models, training and inference.

The atmosphere: waves that travel east along each parallel at a constant speed, on 12 × 24 cells, daily for
400 days. A network of 16 channels can learn it in a few hundred steps.

Torch and the library are imported by the fixtures: pytest's first process, which only deals out the files to
others, reads this file, too.
"""

import itertools
import os

# Before torch is imported: each of pytest's processes, and what it starts, computes on one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import xarray as xr

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # numbers in the tests are the CPU's
# Where numbagg is installed, xarray's first mean compiles for seconds and resets the threads torch may use.
xr.set_options(use_numbagg=False)

NUM_LATITUDES, NUM_LONGITUDES, NUM_DAYS = 12, 24, 400
LATITUDES = np.repeat(90 - 15 * (np.arange(NUM_LATITUDES) + 0.5), NUM_LONGITUDES)
LONGITUDES = np.tile(15.0 * np.arange(NUM_LONGITUDES), NUM_LATITUDES)
TINY = {"num_channels": 16, "num_layers": 2, "num_heads": 2, "mlp_ratio": 2, "trainable_size": 3}


def toy_fields():
    """(day, [t850, msl, orography], cell) float32: waves 1 and 2 move 17 degrees a day."""
    rng = np.random.default_rng(0)
    day, cos = np.arange(NUM_DAYS)[:, None], np.cos(np.deg2rad(LATITUDES))
    fields = np.zeros((NUM_DAYS, 3, len(LATITUDES)))
    for k, (mean, size) in enumerate([(280.0, 8.0), (1e5, 900.0)]):
        knots = rng.normal(1, 0.3, NUM_DAYS // 10 + 1)
        amplitude = np.interp(day[:, 0], 10 * np.arange(len(knots)), knots)[:, None]
        phase = (k + 1) * (np.deg2rad(LONGITUDES) - 0.3 * day)
        fields[:, k] = mean + size * (amplitude * np.cos(phase) * cos**2 + rng.normal(0, 0.05, phase.shape))
    fields[:, 2] = 1000 * np.cos(3 * np.deg2rad(LATITUDES))
    return fields.astype(np.float32)


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory):
    """Daily from 2024-01-01 to 2025-02-03; statistics over 2024; 2024-04-10 is missing."""
    from diffusion_lab.making import StoreMetadata, Variable, create_store

    metadata = StoreMetadata(
        [
            Variable("t850", "K", long_name="temperature at 850 hPa"),
            Variable("msl", "Pa"),
            Variable("orography", "m2 s-2", "forcing", constant_in_time=True),
        ],
        np.datetime64("2024-01-01", "s") + np.arange(NUM_DAYS) * np.timedelta64(1, "D"),
        LATITUDES,
        LONGITUDES,
        (NUM_LATITUDES, NUM_LONGITUDES),
        "15",
        statistics_window=("2024", "2024"),
        missing_dates=["2024-04-10"],
    )
    fields = toy_fields()
    return create_store(tmp_path_factory.mktemp("toy") / "toy.zarr", metadata, lambda times: fields[times])


@pytest.fixture(scope="session")
def octahedral():
    """Latitudes and longitudes, (cell,) degrees, of the octahedral reduced Gaussian grid O`n`.

    2n Gaussian latitudes from north to south; the first has 20 cells, each further one 4 more up to the
    equator: 4n(n + 9) cells.
    """

    def cells(n):
        rows = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(2 * n)[0]))[::-1]
        counts = [20 + 4 * i for i in (*range(n), *reversed(range(n)))]
        return np.repeat(rows, counts), np.concatenate([360 * np.arange(m) / m for m in counts])

    return cells


@pytest.fixture(scope="session")
def toy_graph():
    """The cells of the toy atmosphere and 42 hidden nodes."""
    from diffusion_lab.graphs import multi_scale

    return multi_scale(LATITUDES, LONGITUDES, refinement=1)


@pytest.fixture(autouse=True)
def seed():
    """Tests that draw from torch's global generator draw the same numbers each time."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def perturb():
    """Give every parameter of a module a random part, so that nothing is zero any more."""
    import torch

    def perturbed(module, scale=0.2, seed=7):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        return module

    return perturbed


@pytest.fixture(scope="session")
def tiny():
    """Arguments of a tiny network."""
    return dict(TINY)


@pytest.fixture(scope="session")
def toy_overrides(toy_store):
    """Hydra overrides that train a tiny network on the toy store; `system.output` is left open."""
    sizes = {f"model.{key}": value for key, value in TINY.items()}
    settings = sizes | {
        "graph.refinement": 1,
        "system.input.dataset": toy_store.path,
        "system.accelerator": "cpu",
        "data.computed_forcing": "[cos_julian_day,insolation]",
        "dataloader.training.start": "2024-01",
        "dataloader.training.end": "2024-10",
        "dataloader.validation.start": "2024-11",
        "dataloader.validation.end": "2024-11",
        "dataloader.test.start": "2024-12",
        "dataloader.test.end": "2025-01",
        "diagnostics.progress_bar": "false",
        "diagnostics.tensorboard": "false",
        "diagnostics.log_every_n_steps": 1,
        "diagnostics.validation.starts": 2,
        "diagnostics.validation.num_steps": 3,
        "training.warmup_steps": 5,
        "model.model.diffusion.inference_defaults.noise_scheduler.num_steps": 3,
    }
    return [f"{key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="session")
def toy_config(toy_overrides):
    """Checked config of a tiny training into a folder, with further overrides."""
    from diffusion_lab.config import compose, validate

    def config(folder, *overrides):
        own = [f"system.output={folder}", "training.max_steps=12", "diagnostics.checkpoint_every_n_steps=5"]
        return validate(compose([*toy_overrides, *own, *overrides]))

    return config


@pytest.fixture(scope="session")
def heun_factor():
    """What Heun (EDM, Algorithm 1) makes of unit noise where F = 0, so D(y, σ) = c_skip(σ)·y: a number."""

    def slope(y, sigma):
        return (y - y / (1 + sigma**2)) / sigma

    def factor(sigmas):
        y = sigmas[0]
        for sigma, below in itertools.pairwise(sigmas):
            euler = y + (below - sigma) * slope(y, sigma)
            y = y + (below - sigma) * (slope(y, sigma) + slope(euler, below)) / 2 if below > 0 else euler
        return y

    return factor


@pytest.fixture
def fields():
    """(30 dates, z t orography, 12 cells) float32."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 3, 12)) * np.array([500.0, 8.0, 0.0])[:, None]
    x += np.array([5.5e4, 250.0, 0.0])[:, None]
    x[:, 2] = np.arange(12)
    return x.astype(np.float32)


@pytest.fixture
def metadata():
    """Six-hourly from 1 January 2024, two dates missing, statistics over the first 20 dates."""
    from diffusion_lab.making import StoreMetadata, Variable

    dates = np.datetime64("2024-01-01") + np.arange(30) * np.timedelta64(6, "h")
    variables = [
        Variable("z500", "m2 s-2", long_name="geopotential"),
        Variable("t850", "K", "diagnostic"),
        Variable("orography", "m2 s-2", "forcing", constant_in_time=True),
    ]
    return StoreMetadata(
        variables,
        dates,
        np.repeat([60.0, 0.0, -60.0], 4),
        np.tile([0.0, 90.0, 180.0, 270.0], 3),
        (3, 4),
        "3x4",
        statistics_window=("2024-01-01", dates[19]),
        missing_dates=dates[[4, 25]],
        attributes={"licence": "CC0"},
    )


def released(config, path, perturb_scale):
    """A checkpoint of an untrained network, its weights moved by `perturb_scale` times random numbers."""
    import torch

    from diffusion_lab.training.build import build
    from diffusion_lab.training.release import export_release

    run = build(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in run.task.model.parameters():
            parameter.add_(perturb_scale * torch.randn(parameter.shape, generator=generator))
    return export_release(run, path, {"seed": 0, "command": "made by a test"})


def loaded(path):
    from diffusion_lab.inference import load_forecaster

    return load_forecaster(path, "cpu")


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
    return loaded(released(config, folder / "blank.safetensors", 0.0))


@pytest.fixture(scope="session")
def isotropic(toy_config, tmp_path_factory):
    """Of a tendency model with F = 0 and noise up to wavenumber 3."""
    folder = tmp_path_factory.mktemp("isotropic")
    config = toy_config(folder, "model.model.diffusion.noise_max_wavenumber=3")
    return loaded(released(config, folder / "isotropic.safetensors", 0.0))


@pytest.fixture
def forecaster(checkpoint):
    return loaded(checkpoint)
