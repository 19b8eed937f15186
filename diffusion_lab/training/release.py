"""From a training run to a release file, or to a forecaster in the same process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from diffusion_lab.config import Config, find, instantiate
from diffusion_lab.inference.forecaster import Forecaster
from diffusion_lab.inference.release import Release, describe_variables, fingerprint, save_release
from diffusion_lab.stores.dates import lead_name
from diffusion_lab.stores.states import Normalizer
from diffusion_lab.training.build import Run


def training_facts(run: Run, command: str, seconds: float) -> dict[str, Any]:
    """What a release and its model card say about the training."""
    loader, training, system = run.config.dataloader, run.config.training, run.config.system
    return {
        "command": command,
        "data": run.store.path,
        "window": [str(loader.training.start), str(loader.training.end)],
        "test_window": [str(loader.test.start), str(loader.test.end)],
        "samples": len(run.data.train_set),
        "initial_weights": training.initial_weights,
        "steps": training.max_steps,
        "batch_size": loader.batch_size * system.devices * system.num_nodes,
        "seed": training.seed,
        "seconds": round(seconds),
        "torch": torch.__version__,
        "device": str(run.task.device),
        "threads": torch.get_num_threads(),
    }


def export_release(run: Run, path: Path, training: dict[str, Any]) -> Path:
    """Write the run's network as a release checkpoint; returns its path.

    Args:
        run: just fitted, or loaded by `load_averaged`.
        path: of the new file.
        training: see `training_facts`.

    Raises:
        ValueError: the network has classes that a release cannot hold; `run_forecaster` serves these.
    """
    if own := own_parts(run.config):
        raise ValueError(
            f"{', '.join(own)}: a class of your own. A release runs no code when it is loaded and "
            "cannot hold one; keep the run's last.ckpt, and forecast by training.release.run_forecaster"
        )
    release = _describe(run, training)
    save_release(path, release, run.task.model, run.store.latitudes, run.store.longitudes)
    return path


def run_forecaster(run: Run) -> Forecaster:
    """A forecaster with the run's network as it is, whatever its classes; `run` as in `export_release`."""
    network = run.task.model.eval()
    return Forecaster(_describe(run, {}), network, run.store.latitudes, run.store.longitudes)


def _describe(run: Run, training: dict[str, Any]) -> Release:
    config, model, store, variables = run.config, run.task.model, run.store, run.variables
    graph = instantiate(config.graph, latitudes=store.latitudes, longitudes=store.longitudes)
    names = variables.prognostic + variables.forcing + variables.diagnostic
    normalizer = Normalizer.of(store, names)
    diffusion = config.model.model.diffusion
    defaults = diffusion.inference_defaults
    return Release(
        model=type(model).__name__,
        arguments=getattr(model, "arguments", {}),
        graph=getattr(graph, "recipe", {}),
        graph_fingerprint=fingerprint(graph),
        variables=describe_variables(variables, normalizer.mean, normalizer.stdev, store),
        field_shape=list(store.field_shape),
        step=lead_name(config.data.timestep),
        noise_max_wavenumber=diffusion.noise_max_wavenumber,
        inference_defaults={
            "noise_scheduler": defaults.noise_scheduler,
            "diffusion_sampler": defaults.diffusion_sampler,
        },
        store=config.dataloader.dataset,
        training=training,
    )


def own_parts(config: Config) -> list[str]:
    """Where the config names user-defined classes, which a release checkpoint cannot hold."""
    diffusion = config.model.model.diffusion
    named = {
        "graph": config.graph["_target_"],
        "model.model": config.model.model.target,
        "model.model.diffusion.noise_embedder": diffusion.noise_embedder["_target_"],
        "model.layer_kernels.LayerNorm": config.model.layer_kernels.LayerNorm["_target_"],
    }
    return [path for path, name in named.items() if not find(name).__module__.startswith("diffusion_lab.")]
