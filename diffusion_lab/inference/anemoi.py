"""Forecasts with a diffusion model trained with ECMWF's Anemoi.

Network and preconditioning are Anemoi's, so the denoiser is theirs bit for bit; samplers, schedules, noise
and rollout are ours. Written for anemoi-models 0.13.0, which only `from_anemoi` imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_lab.assets import store_path
from diffusion_lab.denoisers import Denoiser, check_sigma
from diffusion_lab.inference.forecaster import Forecaster, choose_device
from diffusion_lab.inference.release import Release, describe_variables
from diffusion_lab.stores.store import Store, open_store
from diffusion_lab.stores.variables import Variables

REMEDY = "it is not on this Python's path: pip install anemoi-models==0.13.0"


def from_anemoi(
    model: nn.Module | str | Path, store: Store | str | Path, *, device: str = "auto", trust: bool = False
) -> Forecaster:
    """A forecaster with a trained Anemoi diffusion model, for every sampler, score and widget.

    Unlike in Anemoi, sampling ends with the step to σ = 0 (39 network calls for 20 Heun steps, not 38).

    Args:
        model: an `AnemoiModelInterface` around an `AnemoiDiffusionModelEncProcDec` or
            `AnemoiDiffusionTendModelEncProcDec`, or the path of an inference checkpoint with one.
        store: with initial states on the model's cells, units and the shape of a field; or its path or
            shipped name.
        device: "cpu", "cuda", "cuda:1", …, or "auto" for the GPU if there is one.
        trust: load a checkpoint although it is a pickle, which can run any code.

    Raises:
        ImportError: anemoi-models is not installed.
        FileNotFoundError: there is no such checkpoint.
        ValueError: a checkpoint without `trust`, or an unsupported model.
        KeyError: the store lacks a variable of the model.
    """
    if not isinstance(model, nn.Module):
        _check_trusted(Path(model), trust)
    try:
        from anemoi.models.interface import AnemoiModelInterface
        from anemoi.models.models import AnemoiDiffusionModelEncProcDec
    except ImportError as error:
        raise ImportError(f"from_anemoi needs anemoi-models, but {error}; {REMEDY}") from None
    interface = (
        model if isinstance(model, nn.Module) else torch.load(model, map_location="cpu", weights_only=False)
    )
    if not isinstance(interface, AnemoiModelInterface):
        raise ValueError(
            f"from_anemoi takes an AnemoiModelInterface, got a {type(interface).__name__}; of a training's "
            "checkpoints, the one named inference-….ckpt holds it"
        )
    if not isinstance(interface.model, AnemoiDiffusionModelEncProcDec):
        raise ValueError(f"{type(interface.model).__name__} is not a diffusion model; nothing can be sampled")
    if len(interface.data_indices) > 1 or interface.model.n_step_output != 1:
        raise ValueError(
            f"the model forecasts {interface.model.n_step_output} steps at once of the datasets "
            f"{list(interface.data_indices)}; only one step of one dataset is supported"
        )
    store = store if isinstance(store, Store) else open_store(store_path(str(store)))
    network = AnemoiModel(interface).to(choose_device(device)).eval()
    release = _release(interface, network, store)
    cells = np.rad2deg(interface.graph_data[network.dataset].x.double().cpu().numpy()).T
    Forecaster(release, network, *cells).reader(store)  # an error where cells or variables are others
    return Forecaster(release, network, store.latitudes, store.longitudes, store)


class AnemoiModel(nn.Module):
    """An Anemoi model with the interface that a `Forecaster` requires (`ForecastModel`).

    Anemoi takes variables in the order of its dataset and fails with more than one ensemble member in a
    sample. So variables are reordered on input and output, and members become part of the batch.

    Args:
        interface: an `AnemoiModelInterface` of one dataset and one output step.

    Attributes:
        dataset: Anemoi's name for it.
        variables: by role; within a role in Anemoi's order.
        multistep_input: number of past states in the input.
        sigma_data: standard deviation of the target in Anemoi's preconditioning.
        mean: (variable,) of the normalisation; all inputs, then the diagnostic outputs.
        stdev: as mean.
    """

    tendency_mean: Tensor
    tendency_stdev: Tensor

    def __init__(self, interface: Any) -> None:
        super().__init__()
        self.peer = interface.model
        (self.dataset,) = interface.data_indices
        indices = interface.data_indices[self.dataset]
        inputs, outputs = (list(side.name_to_index) for side in (indices.model.input, indices.model.output))
        self.variables = Variables(
            prognostic=tuple(name for name in inputs if name in outputs),
            forcing=tuple(name for name in inputs if name not in outputs),
            diagnostic=tuple(name for name in outputs if name not in inputs),
        )
        self.multistep_input = self.peer.n_step_input
        self.sigma_data = self.peer.sigma_data
        self._input_order = [self.variables.input.index(name) for name in inputs]
        self._output_order = [self.variables.output.index(name) for name in outputs]
        self._output_back = [outputs.index(name) for name in self.variables.output]
        columns = [indices.name_to_index[name] for name in self.variables.input + self.variables.diagnostic]
        self.mean, self.stdev = _scales(interface.pre_processors[self.dataset], columns)
        self._predicts_tendency = self.dataset in interface.pre_processors_tendencies
        if self._predicts_tendency:
            n = len(self.variables.prognostic)
            mean, stdev = _scales(interface.pre_processors_tendencies[self.dataset], columns[:n])
            self.register_buffer("tendency_mean", (mean / self.stdev[:n]).float())
            self.register_buffer("tendency_stdev", (stdev / self.stdev[:n]).float())

    def denoiser(self, x: Tensor) -> Denoiser:
        """Bind the past states x (batch, time, ensemble, grid, input variable), normalised."""
        past = {self.dataset: _members_into_batch(x[..., self._input_order])}

        def denoise(y: Tensor, sigma: Tensor) -> Tensor:
            check_sigma(sigma, y)
            batch, _, members = y.shape[:3]
            noised = _members_into_batch(y[..., self._output_order]).to(x.dtype)
            sigma = sigma.to(noised).expand(batch, 1, members, 1, 1)
            answer = self.peer.fwd_with_preconditioning(
                past, {self.dataset: noised}, {self.dataset: _members_into_batch(sigma)}
            )
            return _members_out_of_batch(answer[self.dataset], batch)[..., self._output_back].to(y.dtype)

        return denoise

    def to_state(self, target: Tensor, reference: Tensor) -> Tensor:
        """The normalised next state, (batch, 1, ensemble, grid, output variable).

        Args:
            target: the denoised state or tendency, normalised as in training.
            reference: the last input state, (batch, 1, ensemble, grid, input variable), normalised.
        """
        if not self._predicts_tendency:
            return target
        n = len(self.variables.prognostic)
        state = target[..., :n] * self.tendency_stdev + self.tendency_mean + self._last(reference)
        return torch.cat([state, target[..., n:]], dim=-1)

    def to_target(self, state: Tensor, reference: Tensor) -> Tensor:
        """The target for a normalised next state: the inverse of `to_state`, same shapes."""
        if not self._predicts_tendency:
            return state
        n = len(self.variables.prognostic)
        tendency = (state[..., :n] - self._last(reference) - self.tendency_mean) / self.tendency_stdev
        return torch.cat([tendency, state[..., n:]], dim=-1)

    def _last(self, reference: Tensor) -> Tensor:
        """The prognostic variables of the last input state, the reference of Anemoi's tendencies."""
        last = {self.dataset: _members_into_batch(reference[..., self._input_order])}
        last = self.peer.apply_reference_state_truncation(last, None, None)[self.dataset]
        return _members_out_of_batch(last, len(reference))


def _members_into_batch(x: Tensor) -> Tensor:
    """(batch, time, ensemble, …) → (batch · ensemble, time, 1, …)."""
    return x.transpose(1, 2).flatten(0, 1).unsqueeze(2)


def _members_out_of_batch(x: Tensor, batch: int) -> Tensor:
    """The inverse of `_members_into_batch`."""
    return x.squeeze(2).unflatten(0, (batch, -1)).transpose(1, 2)


def _scales(processors: Any, columns: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float64, of a normalisation x·mul + add of any method.

    Raises:
        ValueError: there are other processors (imputers, remappers).
    """
    from anemoi.models.preprocessing.normalizer import InputNormalizer

    kinds = [type(processor).__name__ for processor in processors.processors.values()]
    if kinds != [InputNormalizer.__name__]:
        raise ValueError(f"the model has the processors {kinds}; only a single InputNormalizer is supported")
    (normalizer,) = processors.processors.values()
    add, mul = (buffer.double()[list(columns)] for buffer in (normalizer._norm_add, normalizer._norm_mul))
    return -add / mul, 1 / mul


def _check_trusted(path: Path, trust: bool) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no Anemoi checkpoint {str(path)!r}")
    if not trust:
        raise ValueError(
            f"{path} is a pickle: loading it runs whatever code is in it, with your rights. If you know who "
            "made it and that nobody changed it since, say so: from_anemoi(…, trust=True)"
        )


def _release(interface: Any, network: AnemoiModel, store: Store) -> Release:
    """The document of the model; what would rebuild one of our own models is empty."""
    defaults = network.peer.inference_defaults
    return Release(
        model=type(network.peer).__name__,
        arguments={},
        graph={},
        graph_fingerprint="",
        variables=describe_variables(network.variables, network.mean, network.stdev, store),
        field_shape=list(store.field_shape),
        step=interface.config.data.timestep,
        inference_defaults={
            "noise_scheduler": dict(defaults.noise_scheduler),
            "diffusion_sampler": dict(defaults.diffusion_sampler),
        },
        store=store.path,
    )
