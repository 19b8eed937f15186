"""Forecasters without a network, which need milliseconds: what a sampler search can be held against."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffusion_lab.analytic import LinearGaussianForecast
from diffusion_lab.graphs.icosahedron import refined_icosahedron
from diffusion_lab.noise import MemberNoise
from diffusion_lab.sampling import PRESETS

DAY = np.timedelta64(86400, "s")
FIRST = np.datetime64("2024-11-01", "s")


class Toy:
    """What a search asks of a forecaster; a state is a function of the day."""

    step = DAY
    settings = PRESETS["guide"]
    variables = SimpleNamespace(output=("warm", "windy"))
    model = torch.nn.Linear(1, 1)

    def __init__(self):
        self.runs = []

    def reader(self, data=None):
        def outputs(dates):
            return np.stack([self.state((date - FIRST) // DAY) for date in dates])[:, None].astype(np.float32)

        return SimpleNamespace(outputs=outputs, store=SimpleNamespace(path="toy"))

    def rollout(self, date, steps, members, seed, settings, data):
        self.runs.append((settings, date))
        return SimpleNamespace(states=lambda: self.run(settings, date, steps, range(members), seed))


class Landscape(Toy):
    """Errs by (ln σmax/30)², wherever and whenever; the truth leaps by 2 (and by 8) each day."""

    latitudes, longitudes = np.array([90.0, 0, 0, -90]), np.array([0.0, 0, 120, 240])

    def state(self, day):
        return (-1) ** day * np.array([[1.0, 4.0]] * 4)

    def run(self, settings, date, steps, members, seed):
        error = np.log(settings.noise_scheduler["sigma_max"] / 30) ** 2
        for lead in range(1, steps + 1):
            truth = self.state((date - FIRST) // DAY + lead)
            yield np.stack([truth + error * np.array([1.0, 4.0])] * len(members))


class Exact(Toy):
    """The linear-Gaussian atmosphere on 42 nodes with its exact denoiser: all error is the sampler's."""

    def __init__(self):
        super().__init__()
        points, levels = refined_icosahedron(1)
        self.latitudes = np.degrees(np.arcsin(points[:, 2]))
        self.longitudes = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
        pairs = torch.from_numpy(levels[1].T)
        edges = torch.cat([pairs, pairs.flip(0)], dim=1)
        self.atmosphere = LinearGaussianForecast.on_graph(edges, len(points))
        generator = torch.Generator().manual_seed(3)
        self.trajectory = self.atmosphere.simulate(80, 2, generator).numpy()

    def state(self, day):
        return self.trajectory[int(day)]

    def run(self, settings, date, steps, members, seed):
        day = (date - FIRST) // DAY
        x = torch.from_numpy(self.trajectory[[day]])[None, :, None]
        noise = MemberNoise(seed).at(date, DAY, members, (1, *x.shape[-2:]))
        yield settings.sample(self.atmosphere.denoiser(x), noise)[0, 0].numpy()


@pytest.fixture(scope="session")
def new_landscape():
    return Landscape


@pytest.fixture
def landscape(new_landscape):
    return new_landscape()


@pytest.fixture
def exact():
    return Exact()
