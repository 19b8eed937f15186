"""A trained network as a release checkpoint, and what its model card says of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from diffusion_lab.config import instantiate
from diffusion_lab.inference.release import Release, describe_variables, fingerprint, save_release
from diffusion_lab.stores.dates import lead_name
from diffusion_lab.stores.states import Normalizer
from diffusion_lab.training.build import Run


def training_facts(run: Run, command: str, seconds: float) -> dict[str, Any]:
    """What a model card says of the training."""
    loader, training, system = run.config.dataloader, run.config.training, run.config.system
    return {
        "command": command,
        "data": run.store.path,
        "window": [str(loader.training.start), str(loader.training.end)],
        "test_window": [str(loader.test.start), str(loader.test.end)],
        "samples": len(run.data.train_set),
        "steps": training.max_steps,
        "batch_size": loader.batch_size * system.devices * system.num_nodes,
        "seed": training.seed,
        "seconds": round(seconds),
        "torch": torch.__version__,
        "device": str(run.task.device),
        "threads": torch.get_num_threads(),
    } | ({"note": f"from the weights of {start}"} if (start := training.initial_weights) else {})


def export_release(run: Run, path: Path, training: dict[str, Any]) -> Path:
    """Write the network of a run as a release checkpoint.

    Args:
        run: built, and either just fitted or loaded by `load_averaged`.
        path: the file to write.
        training: what the model card says of the training.
    """
    config, model, store, variables = run.config, run.task.model, run.store, run.variables
    graph = instantiate(config.graph, latitudes=store.latitudes, longitudes=store.longitudes)
    names = variables.prognostic + variables.forcing + variables.diagnostic
    normalizer = Normalizer.of(store, names)
    defaults = config.model.model.diffusion.inference_defaults
    release = Release(
        model=type(model).__name__,
        arguments=model.arguments,
        graph=graph.recipe,
        graph_fingerprint=fingerprint(graph),
        variables=describe_variables(variables, normalizer.mean, normalizer.stdev, store),
        field_shape=list(store.field_shape),
        step=lead_name(config.data.timestep),
        noise_max_wavenumber=config.model.model.diffusion.noise_max_wavenumber,
        inference_defaults={
            "noise_scheduler": defaults.noise_scheduler,
            "diffusion_sampler": defaults.diffusion_sampler,
        },
        store=config.dataloader.dataset,
        training=training,
    )
    save_release(path, release, model, store.latitudes, store.longitudes)
    return path
