import itertools
from functools import partial

import numpy as np
import pytest
import torch

from diffusion_lab.graphs import build_graph
from diffusion_lab.inference import Release, save_release
from diffusion_lab.inference.release import VariableInfo, fingerprint
from diffusion_lab.models import Architecture, DiffusionModelEncProcDec
from diffusion_lab.stores.store import open_store

RECIPE = {"graph": "multi_scale", "refinement": 1}


@pytest.fixture(scope="session")
def toy_checkpoint(make_toy_checkpoint):
    """A state model of t850 and msl with random weights, on the toy store."""
    return make_toy_checkpoint(seed=3)


@pytest.fixture(scope="session")
def make_toy_checkpoint(toy_store, tiny, tmp_path_factory):
    """`make_toy_checkpoint(seed)` saves such a model with weights of this seed."""
    return partial(save_toy, toy_store, tiny, tmp_path_factory)


def save_toy(toy_store, tiny, tmp_path_factory, seed):
    torch.manual_seed(seed)
    store = open_store(toy_store.path)
    graph = build_graph(RECIPE, store.latitudes, store.longitudes)
    model = DiffusionModelEncProcDec(graph, 3, 2, 2, Architecture(**tiny))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    variables = [
        VariableInfo(
            name=name,
            role=store.roles[name],
            units=store.units(name),
            long_name="",
            mean=store.statistics.mean[i],
            stdev=store.statistics.stdev[i],
        )
        for i, name in enumerate(store.variables)
    ]
    release = Release(
        model="DiffusionModelEncProcDec",
        arguments=model.arguments,
        graph=RECIPE,
        graph_fingerprint=fingerprint(graph),
        variables=variables,
        field_shape=list(store.field_shape),
        step="1d",
        inference_defaults={
            "noise_scheduler": {
                "schedule_type": "karras",
                "sigma_max": 80.0,
                "sigma_min": 0.03,
                "rho": 7.0,
                "num_steps": 3,
            },
            "diffusion_sampler": {"sampler": "heun", "S_churn": 0.0},
        },
        store=str(toy_store.path),
    )
    path = tmp_path_factory.mktemp("tuner") / "toy.safetensors"
    save_release(path, release, model, np.asarray(store.latitudes), np.asarray(store.longitudes))
    return path


@pytest.fixture
def by_hand():
    """`by_hand(slider, value)` does what a page does when a hand has moved a slider to a value."""
    counts = itertools.count(1)

    def move(slider, value, moving=False):
        value = "∞" if value == float("inf") else value
        content = {"view": "hand", "count": next(counts), "value": value, "moving": moving}
        slider._handle_msg(
            {"content": {"data": {"method": "custom", "content": content}}, "buffers": [], "metadata": {}}
        )
        assert slider.heard == ["hand", content["count"]]

    return move
