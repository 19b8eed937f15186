"""Names of classes in a config: import paths of your own, of ours, or of Anemoi for ours of the same role."""

from __future__ import annotations

import importlib
from typing import Any

from diffusion_lab.spelling import closest

NAMES: dict[str, str] = {
    "anemoi.models.models.AnemoiDiffusionModelEncProcDec": "diffusion_lab.models.DiffusionModelEncProcDec",
    "anemoi.models.models.AnemoiDiffusionTendModelEncProcDec": (
        "diffusion_lab.models.DiffusionTendModelEncProcDec"
    ),
    "anemoi.models.layers.processor.GraphTransformerProcessor": (
        "diffusion_lab.models.processors.GraphTransformerProcessor"
    ),
    "anemoi.models.layers.processor.TransformerProcessor": (
        "diffusion_lab.models.processors.TransformerProcessor"
    ),
    "anemoi.models.layers.diffusion.SinusoidalEmbeddings": "diffusion_lab.models.SinusoidalEmbeddings",
    "anemoi.models.layers.normalization.ConditionalLayerNorm": "diffusion_lab.models.ConditionalLayerNorm",
    "anemoi.training.train.tasks.GraphForecaster": "diffusion_lab.training.forecaster.GraphForecaster",
    "anemoi.training.train.tasks.GraphTendForecaster": (
        "diffusion_lab.training.forecaster.GraphTendForecaster"
    ),
    # These two and WeightedMSELoss are of earlier versions of the guide.
    "anemoi.training.train.tasks.GraphDiffusionForecaster": (
        "diffusion_lab.training.forecaster.GraphForecaster"
    ),
    "anemoi.training.train.tasks.GraphDiffusionTendForecaster": (
        "diffusion_lab.training.forecaster.GraphTendForecaster"
    ),
    "anemoi.training.losses.MSELoss": "diffusion_lab.objectives.MSELoss",
    "anemoi.training.losses.WeightedMSELoss": "diffusion_lab.objectives.MSELoss",
    "anemoi.training.train.objectives.DiffusionObjective": "diffusion_lab.objectives.DiffusionObjective",
}
"""Anemoi's class → ours of the same role: the one table, printed by `diffusion-lab guide`."""

_BY_CLASS = {name.rpartition(".")[2]: ours for name, ours in NAMES.items()}


def our_name(name: str) -> str:
    """The import path that a name in a config means.

    An `anemoi.` path is known by its class, from whichever of Anemoi's modules it is taken.

    Raises:
        ValueError: an `anemoi.` name that has no counterpart here.
    """
    if not name.startswith("anemoi."):
        return name
    try:
        return _BY_CLASS[name.rpartition(".")[2]]
    except KeyError:
        near = closest(name, NAMES, 0.6)
        hint = f"; did you mean {near!r}?" if near else "."
        raise ValueError(
            f"has no counterpart here{hint} `diffusion-lab guide` lists the names there are"
        ) from None


def find(name: str) -> Any:
    """The class or function that a name in a config means.

    Raises:
        ValueError: it has no counterpart, or cannot be imported.
    """
    path = our_name(name)
    try:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        near = closest(path, NAMES.values(), 0.8)
        hint = (
            f"did you mean {near!r}?"
            if near
            else "write the import path of a class; for a file of your own, PYTHONPATH=ITS_FOLDER"
        )
        raise ValueError(f"cannot be imported ({error}); {hint}") from None
