"""Class names in a config: import paths, or Anemoi's names for our classes of the same role."""

from __future__ import annotations

import importlib
from typing import Any

from diffusion_lab.spelling import closest

NAMES: dict[str, str] = {
    f"anemoi.{theirs}": f"diffusion_lab.{ours}"
    for theirs, ours in (
        ("models.models.AnemoiDiffusionModelEncProcDec", "models.DiffusionModelEncProcDec"),
        ("models.models.AnemoiDiffusionTendModelEncProcDec", "models.DiffusionTendModelEncProcDec"),
        ("models.layers.processor.GraphTransformerProcessor", "models.processors.GraphTransformerProcessor"),
        ("models.layers.processor.TransformerProcessor", "models.processors.TransformerProcessor"),
        ("models.layers.diffusion.SinusoidalEmbeddings", "models.SinusoidalEmbeddings"),
        ("models.layers.normalization.ConditionalLayerNorm", "models.ConditionalLayerNorm"),
        ("training.train.tasks.GraphForecaster", "training.forecaster.GraphForecaster"),
        ("training.train.tasks.GraphTendForecaster", "training.forecaster.GraphTendForecaster"),
        # These two and WeightedMSELoss are names from earlier versions of the guide.
        ("training.train.tasks.GraphDiffusionForecaster", "training.forecaster.GraphForecaster"),
        ("training.train.tasks.GraphDiffusionTendForecaster", "training.forecaster.GraphTendForecaster"),
        ("training.losses.MSELoss", "objectives.MSELoss"),
        ("training.losses.WeightedMSELoss", "objectives.MSELoss"),
        ("training.train.objectives.DiffusionObjective", "objectives.DiffusionObjective"),
    )
}
"""Anemoi's class → ours of the same role; the only such table, printed by `diffusion-lab guide`."""

_BY_CLASS = {name.rpartition(".")[2]: ours for name, ours in NAMES.items()}


def our_name(name: str) -> str:
    """The import path that a name in a config means.

    An `anemoi.` path is recognised by its class, whichever of Anemoi's modules it names.

    Raises:
        ValueError: an `anemoi.` name without a counterpart here.
    """
    if not name.startswith("anemoi."):
        return name
    if ours := _BY_CLASS.get(name.rpartition(".")[2]):
        return ours
    near = closest(name, NAMES, 0.6)
    hint = f"; did you mean {near!r}?" if near else "."
    raise ValueError(f"has no counterpart here{hint} `diffusion-lab guide` lists the known names")


def find(name: str) -> Any:
    """The class or function that a name in a config means.

    Raises:
        ValueError: it has no counterpart, or cannot be imported.
    """
    path = our_name(name)
    try:
        module, _, attribute = path.rpartition(".")
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        near = closest(path, NAMES.values(), 0.8)
        own = "write the import path of a class; for a file of your own, PYTHONPATH=ITS_FOLDER"
        hint = f"did you mean {near!r}?" if near else own
        raise ValueError(f"cannot be imported ({error}); {hint}") from None
