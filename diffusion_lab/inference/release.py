"""Release checkpoints: one safetensors file that rebuilds a forecaster and never runs code when loaded.

The file holds the weights, coordinates and tendency scales as tensors, and a JSON document: the model's class
and arguments, the graph's recipe, variables, statistics, sampling defaults, training and scores. Classes are
looked up in a table of two; nothing is imported by name.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffusion_lab.models import Architecture, DiffusionModelEncProcDec, DiffusionTendModelEncProcDec
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.dates import lead_timedelta
from diffusion_lab.stores.store import Role, Store
from diffusion_lab.stores.variables import Variables

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

FORMAT = "diffusion_lab release 1"
MODELS = {cls.__name__: cls for cls in (DiffusionModelEncProcDec, DiffusionTendModelEncProcDec)}


class VariableInfo(BaseModel):
    """A variable of a forecast; `units` are empty if its store has none."""

    model_config = ConfigDict(extra="forbid")
    name: str
    role: Role
    units: str
    long_name: str
    mean: FiniteFloat
    stdev: Annotated[FiniteFloat, Field(gt=0)]


class Release(BaseModel):
    """The JSON document of a release checkpoint.

    Attributes:
        format: `FORMAT`.
        model: name of a class in `MODELS`.
        arguments: the model's numbers of variables and the fields of its architecture.
        graph: recipe of the graph, see `graphs.build_graph`.
        graph_fingerprint: of the graph in training, see `fingerprint`.
        variables: inputs and outputs in the network's order: prognostic, forcing, diagnostic.
        field_shape: shape of a field before it was flattened to cells.
        step: forecast step such as "1d".
        inference_defaults: see `sampling.SamplingSettings`.
        noise_max_wavenumber: of the isotropic noise in training; None for white noise on the grid.
        store: the store in training; if shipped, the default for forecasts.
        training: data, steps, seconds, seed, command, machine.
        scores: and the data they are for.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")  # S_max may be infinite
    format: str = FORMAT
    model: str
    arguments: dict[str, int | float | str | bool]
    graph: dict[str, Any]
    graph_fingerprint: str
    variables: list[VariableInfo]
    field_shape: list[int]
    step: str
    inference_defaults: dict[Literal["noise_scheduler", "diffusion_sampler"], dict[str, Any]]
    noise_max_wavenumber: Annotated[int, Field(ge=0)] | None = None
    store: str
    training: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)


def describe_variables(variables: Variables, mean: Tensor, stdev: Tensor, store: Store) -> list[VariableInfo]:
    """The variables of a release, in the network's order: prognostic, forcing, diagnostic.

    Args:
        variables: roles and order.
        mean: (variable,) of the normalisation, in that order.
        stdev: as mean.
        store: with units and long names.
    """
    order: tuple[Role, ...] = ("prognostic", "forcing", "diagnostic")
    roles = [(name, role) for role in order for name in getattr(variables, role)]
    return [
        VariableInfo(
            name=name,
            role=role,
            units=store.units(name) if name in store.variables else "1",  # of a computed forcing
            long_name=store.long_name(name) if name in store.variables else name,
            mean=mean[i].item(),
            stdev=stdev[i].item(),
        )
        for i, (name, role) in enumerate(roles)
    ]


def save_release(
    path: str | Path,
    release: Release,
    model: DiffusionModelEncProcDec,
    latitudes: np.ndarray,
    longitudes: np.ndarray,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a release checkpoint, renamed from a partial file when complete.

    Args:
        path: ends in ".safetensors".
        release: all but the tensors.
        model: its buffers keep their dtype.
        latitudes: (cell,) degrees, float64.
        longitudes: (cell,) degrees, float64.
        dtype: of the parameters; half precision halves the size at a relative rounding error of 5e-4.
    """
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {
        name: tensor.detach().cpu().to(dtype if name in parameters else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    tensors["latitudes"] = torch.from_numpy(np.asarray(latitudes, np.float64))
    tensors["longitudes"] = torch.from_numpy(np.asarray(longitudes, np.float64))
    partial = f"{path}.partial"
    save_file(tensors, partial, {"diffusion_lab": release.model_dump_json()})
    os.replace(partial, path)


def load_release(path: str | Path) -> tuple[Release, DiffusionModelEncProcDec, np.ndarray, np.ndarray]:
    """Read a release checkpoint.

    Returns:
        Document, model (float32, in evaluation mode, on the CPU), latitudes and longitudes in degrees.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not a release checkpoint, or inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {str(path)!r}")
    release, tensors = _read(path)
    latitudes, longitudes = (tensors.pop(name).numpy() for name in ("latitudes", "longitudes"))
    try:
        model = _build(release, tensors, latitudes, longitudes)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: the parts of the checkpoint do not fit together: {reason}") from None
    return release, model.eval(), latitudes, longitudes


def _build(
    release: Release, tensors: dict[str, torch.Tensor], latitudes: np.ndarray, longitudes: np.ndarray
) -> DiffusionModelEncProcDec:
    """The model with its weights, once the rest of the release has been checked against it."""
    from diffusion_lab.graphs import build_graph  # imported here, since it needs SciPy

    graph = build_graph(release.graph, latitudes, longitudes)
    if fingerprint(graph) != release.graph_fingerprint:
        raise ValueError(
            f"the graph built from the recipe {release.graph} is not the one the weights were trained on; "
            "load the checkpoint with the version of diffusion_lab that made it"
        )
    given: dict[str, Any] = dict(release.arguments)  # checked by the constructors
    own = {name: given.pop(name) for name in ("num_input", "num_output", "num_prognostic")}
    own |= {name: tensors[name] for name in ("tendency_mean", "tendency_stdev") if name in tensors}
    model = MODELS[release.model](graph, architecture=Architecture(**given), **own)
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape:
            raise ValueError(f"the tensor {name!r} is missing, unknown or of another shape than the model's")
        if not tensors[name].isfinite().all():
            raise ValueError(f"the tensor {name!r} holds numbers that are not finite")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    roles = [variable.role for variable in release.variables]
    sizes = {
        "num_input": roles.count("prognostic") + roles.count("forcing"),
        "num_output": roles.count("prognostic") + roles.count("diagnostic"),
        "num_prognostic": roles.count("prognostic"),
    }
    if any(release.arguments[name] != size for name, size in sizes.items()):
        raise ValueError(f"the variables make {sizes}, the model was built for {release.arguments}")
    if math.prod(release.field_shape) != len(latitudes):
        raise ValueError(f"field_shape {release.field_shape} is not that of {len(latitudes)} cells")
    lead_timedelta(release.step)
    SamplingSettings(**release.inference_defaults)
    return model


def _read(path: Path) -> tuple[Release, dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            document = (file.metadata() or {}).get("diffusion_lab")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}). Damaged? Copy it again. "
            "A pickle (.ckpt, .pt)? It could run code and is never opened here."
        ) from None
    if document is None:
        raise ValueError(f"{path} is a safetensors file, but not a release checkpoint of diffusion_lab")
    try:
        release = Release.model_validate(json.loads(document))
    except (RecursionError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path}: the document in the checkpoint is damaged: {place} {first['msg']}. Copy it again."
        ) from None
    if release.format != FORMAT or release.model not in MODELS:
        raise ValueError(
            f"{path} holds a {release.model!r} in the format {release.format!r}; this version reads "
            f"{', '.join(MODELS)} in {FORMAT!r}"
        )
    if missing := {"latitudes", "longitudes"} - tensors.keys():
        raise ValueError(f"{path}: the tensors {', '.join(sorted(missing))} are missing")
    return release, tensors


def fingerprint(graph: HeteroData) -> str:
    """A hash of the edges, the part of a graph that trained weights depend on exactly."""
    digest = hashlib.sha256()
    for edge_type in sorted(graph.edge_types):
        digest.update("-".join(edge_type).encode())
        digest.update(graph[edge_type].edge_index.numpy().tobytes())
    return digest.hexdigest()[:16]
