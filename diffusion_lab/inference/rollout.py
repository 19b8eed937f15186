"""An autoregressive ensemble forecast, computed as it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lab.denoisers import Denoiser
from diffusion_lab.inference.labels import forecast_dataset
from diffusion_lab.inference.trained import TrainedModel
from diffusion_lab.noise import MemberNoise
from diffusion_lab.samplers import Step
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.states import StateReader

if TYPE_CHECKING:
    import xarray as xr

_MEMBERS_PER_CALL = {"cpu": 4, "cuda": 64}


def default_members_per_call(device: torch.device | str) -> int:
    """Members in one network call: enough to fill a GPU, few enough to stay in the cache of a CPU."""
    return _MEMBERS_PER_CALL.get(torch.device(device).type, 8)


@dataclass(frozen=True)
class SolverStep:
    """A forecast after one solver step for some of its members.

    Attributes:
        lead: number of the forecast step, from 1.
        members: their numbers.
        step: of the sampler.
        last: whether it is the last one of this forecast step.
        physical: converts a tensor of the sampler to a state (ensemble, cell, output variable) in physical
            units.
    """

    lead: int
    members: Sequence[int]
    step: Step
    last: bool
    physical: Callable[[Tensor], NDArray[np.float32]]

    def state(self) -> NDArray[np.float32]:
        """The noisy state, which at the last step is the forecast: (ensemble, cell, output variable)."""
        return self.physical(self.step.state)

    def denoised(self) -> NDArray[np.float32]:
        """D(y; σ) at the start of the step, the current estimate: (ensemble, cell, output variable)."""
        return self.physical(self.step.denoised)


class Guide(Protocol):
    """Guides the denoiser of a forecast step by what is known about the state at its valid time."""

    def __call__(
        self, denoiser: Denoiser, valid: np.datetime64, state: Callable[[Tensor], Tensor]
    ) -> Denoiser:
        """Return the guided denoiser.

        Args:
            denoiser: of the normalised state or tendency.
            valid: the valid time of the step.
            state: converts clean tensors of the denoiser to states in physical units, differentiably.
        """
        ...


@dataclass(frozen=True)
class Rollout:
    """A forecast from one date. It is computed only when read, and anew each time.

    Attributes:
        trained: the model.
        reader: of the store with the initial states.
        date: start, datetime64[s].
        steps: number of forecast steps.
        members: their numbers; a member is the same in every ensemble.
        seed: of the whole ensemble.
        settings: of the sampler.
        members_per_call: members in one network call; fewer need less memory.
        wrap: replaces the denoiser of each trajectory by another: to watch it, or to stop between two network
            calls by raising an exception.
        guide: guides the denoiser of each step, for example by observations.

    Raises:
        KeyError: the store lacks the date.
        ValueError: fewer than one step, member, or member in a call, or a repeated member.
    """

    trained: TrainedModel
    reader: StateReader
    date: np.datetime64
    steps: int
    members: Sequence[int]
    seed: int
    settings: SamplingSettings
    members_per_call: int
    wrap: Callable[[Denoiser], Denoiser]
    guide: Guide | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.members:
            got = f"steps={self.steps}, members={list(self.members)}"
            raise ValueError(f"a forecast needs at least one step and one member, got {got}")
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"members={list(self.members)}: a member is given twice; leave one out")
        if self.members_per_call < 1:
            raise ValueError(f"members_per_call={self.members_per_call} must be at least 1")
        self.reader.store.index(self.date)  # the error names the start, not an earlier input

    @torch.no_grad()
    def solver_steps(self) -> Iterator[SolverStep]:
        """The forecast as it is sampled: solver step by solver step, for each chunk of members at each lead.

        Raises:
            KeyError: the store lacks an input state.
            ValueError: an input state has missing values.
        """
        trained, settings = self.trained, self.settings
        noise = MemberNoise(self.seed, trained.noise_field, settings.noise_correlation)
        last = len(settings.sigmas()) - 2
        x = trained.inputs(self.reader, self.date).expand(-1, -1, len(self.members), -1, -1)
        for lead in range(1, self.steps + 1):
            states = []
            leads = np.arange(1 if settings.noise_correlation else lead, lead + 1) * trained.step
            for first in range(0, len(self.members), self.members_per_call):
                some = slice(first, first + self.members_per_call)
                members, past = self.members[some], x[:, :, some]
                draw = noise.at(self.date, leads, members, trained.noise_shape, trained.device)
                physical = partial(trained.physical, reference=past[:, -1:])
                denoiser = trained.model.denoiser(past)
                if self.guide is not None:
                    valid = self.date + lead * trained.step
                    denoiser = self.guide(denoiser, valid, partial(trained.state, reference=past[:, -1:]))
                for step in settings.steps(self.wrap(denoiser), draw):
                    yield SolverStep(lead, members, step, step.index == last, physical)
                states.append(trained.model.to_state(step.state.float(), past[:, -1:]))
            if lead < self.steps:
                valid = self.date + lead * trained.step
                following = trained.next_input(torch.cat(states, dim=2), self.reader, valid)
                x = torch.cat([x[:, 1:], following], dim=1)

    def states(self) -> Iterator[NDArray[np.float32]]:
        """The forecast one step at a time: (ensemble, cell, output variable), physical units.

        Errors as `solver_steps`.
        """
        chunks: list[NDArray[np.float32]] = []
        for solver_step in self.solver_steps():
            if solver_step.last:
                chunks.append(solver_step.state())
            if sum(map(len, chunks)) == len(self.members):
                yield np.concatenate(chunks)
                chunks = []

    def dataset(self) -> xr.Dataset:
        """The whole forecast with dims (time, ensemble, cell) and CF names. Errors as `solver_steps`."""
        return self.label(np.stack(list(self.states())))

    def label(self, states: NDArray[np.float32], first_step: int = 1) -> xr.Dataset:
        """States of this forecast, (step, ensemble, cell, output variable), as labelled data."""
        return forecast_dataset(self.trained, self.date, self.members, states, first_step)
