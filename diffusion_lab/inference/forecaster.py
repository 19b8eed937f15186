"""Autoregressive ensemble forecasts from a trained model, in physical units, as labelled data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from diffusion_lab.assets import checkpoints, store_path
from diffusion_lab.denoisers import Denoiser
from diffusion_lab.inference.output import forecast_dataset
from diffusion_lab.inference.release import Release, load_release
from diffusion_lab.models import compile_blocks
from diffusion_lab.noise import MemberNoise, SphericalNoise
from diffusion_lab.samplers import Step
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.dates import lead_timedelta
from diffusion_lab.stores.states import Normalizer, StateReader
from diffusion_lab.stores.store import Store, open_store
from diffusion_lab.stores.variables import Variables

# Members in one network call: enough to fill a processor, few enough to stay in a CPU's cache.
MEMBERS_PER_CALL = {"cpu": 4, "cuda": 64}

Params = Mapping[str, Any] | None


@dataclass(frozen=True)
class SolverStep:
    """A forecast after one solver step of some of its members.

    Attributes:
        lead: number of the forecast step, from 1.
        members: which members.
        step: where the sampler is.
        last: whether this step ends the sampling of this lead.
        physical: makes a state (ensemble, cell, output variable) in physical units of the sampler's tensors.
    """

    lead: int
    members: Sequence[int]
    step: Step
    last: bool
    physical: Callable[[Tensor], np.ndarray]

    def state(self) -> np.ndarray:
        """The noisy state, and at the last step the forecast: (ensemble, cell, output variable)."""
        return self.physical(self.step.state)

    def denoised(self) -> np.ndarray:
        """D(y; σ) where the step began, the forecast so far: (ensemble, cell, output variable)."""
        return self.physical(self.step.denoised)


class ForecastModel(Protocol):
    """What a `Forecaster` asks of a network: those in `models` have it, and `from_anemoi` gives it to theirs.

    Attributes:
        multistep_input: past states shown to the network.
    """

    multistep_input: int

    def denoiser(self, x: Tensor) -> Denoiser:
        """Bind the past states x (batch, time, ensemble, grid, input variable), normalised."""
        ...

    def to_state(self, target: Tensor, reference: Tensor) -> Tensor:
        """The normalised next state for what was denoised from a last input state `reference`."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights; they lie where the network runs."""
        ...


class Forecaster:
    """A trained model with all it needs to make forecasts.

    Args:
        release: the document of the checkpoint.
        model: the network, on the device it is to run on.
        latitudes: (cell,) degrees.
        longitudes: (cell,) degrees.

    Attributes:
        variables: roles and order of the variables.
        settings: the checkpoint's sampling defaults.
        noise_field: how noise is made, as in training; None for white noise.
        step: the forecast step, timedelta64.
    """

    def __init__(
        self, release: Release, model: ForecastModel, latitudes: np.ndarray, longitudes: np.ndarray
    ) -> None:
        self.release, self.model = release, model
        self.latitudes, self.longitudes = latitudes, longitudes
        self.device = next(model.parameters()).device
        self.step = lead_timedelta(release.step)
        self.settings = SamplingSettings(**release.inference_defaults)
        band = release.noise_max_wavenumber
        self.noise_field = None if band is None else SphericalNoise(latitudes, longitudes, band)
        info = {v.name: v for v in release.variables}
        self.variables = Variables(
            **{
                role: tuple(v.name for v in release.variables if v.role == role)
                for role in ("prognostic", "forcing", "diagnostic")
            }
        )

        def normalizer(names: Sequence[str]) -> Normalizer:
            return Normalizer([info[n].mean for n in names], [info[n].stdev for n in names])

        self.input_normalizer = normalizer(self.variables.input)
        self.output_normalizer = normalizer(self.variables.output)
        self.forcing_normalizer = normalizer(self.variables.forcing)

    def predict_step(
        self,
        batch: Tensor,
        noise_scheduler_params: Params = None,
        sampler_params: Params = None,
        *,
        seed: int = 0,
    ) -> Tensor:
        """One forecast step for a batch of input states (the guide's `predict_step`).

        Args:
            batch: (batch, time, ensemble, grid, input variable), physical units.
            noise_scheduler_params: keys of the schedule to override, e.g. {"num_steps": 20}.
            sampler_params: keys of the sampler to override, e.g. {"S_churn": 2.5}.
            seed: of the noise, which is keyed by the position in the batch.

        Returns:
            (batch, 1, ensemble, grid, output variable), physical units.

        Raises:
            ValueError: an unknown key or a value out of range.
        """
        settings = self.settings.override(noise_scheduler_params, sampler_params)
        noise = MemberNoise(seed, self.noise_field).at(
            start=list(range(len(batch))),
            lead=1,
            members=range(batch.shape[2]),
            shape=self._noise_shape,
            device=self.device,
        )
        x = self.input_normalizer.normalise(batch.to(self.device))
        return self.output_normalizer.denormalise(self._sample(x, settings, noise)).cpu()

    def forecast(
        self,
        date: str | np.datetime64,
        steps: int = 20,
        members: int | Sequence[int] = 16,
        seed: int = 0,
        data: Store | str | Path | None = None,
        noise_scheduler_params: Params = None,
        sampler_params: Params = None,
        *,
        members_per_call: int | None = None,
    ) -> xr.Dataset:
        """Forecast an ensemble from the state at a date.

        Args:
            date: start, such as "2025-01-01" or "2025-01-01T12".
            steps: forecast steps.
            members: how many members, or which: member 3 is the same in every ensemble.
            seed: of the whole ensemble.
            data: an open store, its path, or a shipped store's name; None for the one the checkpoint names.
            noise_scheduler_params: keys of the schedule to override.
            sampler_params: keys of the sampler to override.
            members_per_call: members in one network call; fewer need less memory.

        Returns:
            Dataset with dims (time, ensemble, cell), time being the valid time of each step.

        Raises:
            KeyError: the store lacks the date or a variable.
            ValueError: an unknown key or a value out of range, or a store on other cells.
        """
        members = list(range(members)) if isinstance(members, int) else list(members)
        states = self.states(
            date,
            steps,
            members,
            seed,
            data,
            noise_scheduler_params,
            sampler_params,
            members_per_call=members_per_call,
        )
        return forecast_dataset(self, np.datetime64(date, "s"), members, np.stack(list(states)))

    def states(
        self,
        date: str | np.datetime64,
        steps: int,
        members: Sequence[int],
        seed: int = 0,
        data: Store | str | Path | None = None,
        noise_scheduler_params: Params = None,
        sampler_params: Params = None,
        *,
        members_per_call: int | None = None,
    ) -> Iterator[np.ndarray]:
        """The states of `forecast`, one step at a time: (ensemble, cell, output variable), physical units.

        Arguments and errors as `forecast`; a whole forecast need never be in memory.
        """
        solver_steps = self.solver_steps(
            date,
            steps,
            members,
            seed,
            data,
            noise_scheduler_params,
            sampler_params,
            members_per_call=members_per_call,
        )
        return _states(solver_steps, len(members))

    def solver_steps(
        self,
        date: str | np.datetime64,
        steps: int,
        members: Sequence[int],
        seed: int = 0,
        data: Store | str | Path | None = None,
        noise_scheduler_params: Params = None,
        sampler_params: Params = None,
        *,
        members_per_call: int | None = None,
        wrap: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
    ) -> Iterator[SolverStep]:
        """The forecast as it is sampled: one item a solver step, for each chunk of members, for each lead.

        Arguments and errors as `forecast`. `wrap` makes another denoiser of each trajectory's: to guide it,
        to watch it, or to end it between two network calls by raising an exception.
        """
        settings = self.settings.override(noise_scheduler_params, sampler_params)
        if steps < 1 or not members:
            raise ValueError(f"a forecast has at least one step and one member, got {steps = }, {members = }")
        reader = self.reader(data)
        date = np.datetime64(date, "s")
        reader.store.index(date)  # where it is lacking, the error names the start, not an earlier input
        past = np.arange(1 - self.model.multistep_input, 1) * self.step
        x = self._normalised_inputs(reader, date + past).expand(-1, -1, len(members), -1, -1)
        chunk = members_per_call or MEMBERS_PER_CALL.get(self.device.type, 8)
        return self._roll_out(x, reader, date, steps, members, seed, settings, chunk, wrap)

    def reader(self, data: Store | str | Path | None = None) -> StateReader:
        """A reader of the store forecasts start from; the argument as in `forecast`."""
        store = data if isinstance(data, Store) else open_store(store_path(str(data or self.release.store)))
        remedy = "give data on the model's own grid"
        if store.latitudes.shape != self.latitudes.shape:
            raise ValueError(
                f"the model was trained on other cells ({len(self.latitudes)}) than those of {store.path!r} "
                f"({len(store.latitudes)}); {remedy}"
            )
        here = np.stack([self.latitudes, self.longitudes])
        off = np.abs(here - np.stack([store.latitudes, store.longitudes]))
        if off.max() > 1e-4:
            raise ValueError(
                f"the model was trained on other cells than those of {store.path!r}: as many, but their "
                f"coordinates differ by up to {off.max():.4g} degrees; {remedy}"
            )
        return StateReader(store, self.variables)

    @property
    def _noise_shape(self) -> tuple[int, int, int]:
        return (1, len(self.latitudes), len(self.variables.output))

    def _normalised_inputs(self, reader: StateReader, dates: np.ndarray) -> Tensor:
        """(1, time, 1, cell, input variable) at some dates, from member 0 of the store."""
        states = torch.from_numpy(reader.inputs(dates)[:, :1])[None]
        if not torch.isfinite(states).all():
            raise ValueError(
                f"the input states at {dates.astype('datetime64[m]').tolist()} hold missing values"
            )
        return self.input_normalizer.normalise(states).to(self.device)

    def _sample(self, x: Tensor, settings: SamplingSettings, noise: Any) -> Tensor:
        """The next normalised state for x, (batch, 1, ensemble, cell, output variable)."""
        with torch.inference_mode():
            target = settings.sample(self.model.denoiser(x), noise)
            return self.model.to_state(target, x[:, -1:])

    @torch.inference_mode()
    def _roll_out(
        self,
        x: Tensor,
        reader: StateReader,
        date: np.datetime64,
        steps: int,
        members: Sequence[int],
        seed: int,
        settings: SamplingSettings,
        chunk: int,
        wrap: Callable[[Denoiser], Denoiser],
    ) -> Iterator[SolverStep]:
        noise = MemberNoise(seed, self.noise_field, settings.noise_correlation)
        last = len(settings.sigmas()) - 2
        for lead in range(1, steps + 1):
            states = []
            for first in range(0, len(members), chunk):
                some = slice(first, first + chunk)
                leads = np.arange(1 if settings.noise_correlation else lead, lead + 1) * self.step
                draw = noise.at(date, leads, members[some], self._noise_shape, self.device)
                past = x[:, :, some]
                physical = partial(self._physical, reference=past[:, -1:])
                for step in settings.steps(wrap(self.model.denoiser(past)), draw):
                    yield SolverStep(lead, members[some], step, step.index == last, physical)
                states.append(self.model.to_state(step.state.float(), past[:, -1:]))
            if lead < steps:
                following = self._next_input(torch.cat(states, dim=2), reader, date + lead * self.step)
                x = torch.cat([x[:, 1:], following], dim=1)

    @torch.inference_mode()
    def _physical(self, target: Tensor, reference: Tensor) -> np.ndarray:
        """What the sampler works on, as a state (ensemble, cell, output variable) in physical units."""
        state = self.model.to_state(target.float(), reference)
        return self.output_normalizer.denormalise(state)[0, 0].cpu().numpy()

    def _next_input(self, state: Tensor, reader: StateReader, date: np.datetime64) -> Tensor:
        """A forecast state with the forcings of its valid time, (1, 1, ensemble, cell, input variable)."""
        forcings = torch.from_numpy(reader.forcings([date]))[:, None, None]
        forcings = self.forcing_normalizer.normalise(forcings).to(state)
        prognostic = state[..., : len(self.variables.prognostic)]
        return torch.cat([prognostic, forcings.expand(-1, -1, state.shape[2], -1, -1)], dim=-1)


def _states(solver_steps: Iterator[SolverStep], count: int) -> Iterator[np.ndarray]:
    """The state of all `count` members at the end of each lead's solver steps."""
    chunks: list[np.ndarray] = []
    for solver_step in solver_steps:
        if solver_step.last:
            chunks.append(solver_step.state())
        if sum(map(len, chunks)) == count:
            yield np.concatenate(chunks)
            chunks = []


def load_forecaster(checkpoint: str | Path, device: str = "auto", *, compile: bool = False) -> Forecaster:
    """Load a released or your own checkpoint.

    Args:
        checkpoint: a released name such as "example-tendency", or a path to a .safetensors file.
        device: "cpu", "cuda", "cuda:1", …, or "auto" for the GPU if there is one.
        compile: spend about a minute at the first forecast on making all further network calls faster, see
            `models.compile_blocks`; on a CPU the network is as fast without, and stays as it is.

    Raises:
        FileNotFoundError: naming the released checkpoints.
        ValueError: the file is damaged or no release checkpoint, or there is no such device.
    """
    released = checkpoints()
    path = Path(released.get(str(checkpoint), checkpoint))
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {str(checkpoint)!r}; give a path, or one of {', '.join(released)}"
        )
    release, model, latitudes, longitudes = load_release(path)
    forecaster = Forecaster(release, model.to(choose_device(device)), latitudes, longitudes)
    if compile and forecaster.device.type != "cpu":
        compile_blocks(model)
    return forecaster


def choose_device(name: str) -> torch.device:
    """The device of this name; "auto" is the GPU if there is one.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch's words differ by build
        said = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device = {name!r}: {said}; give cpu, cuda, cuda:1, … or auto") from None
