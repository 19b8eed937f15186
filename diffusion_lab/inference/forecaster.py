"""Autoregressive ensemble forecasts from a trained model, in physical units, as labelled data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.assets import checkpoints
from diffusion_lab.denoisers import Denoiser
from diffusion_lab.guidance import MMPS
from diffusion_lab.inference.observing import Assimilation, Method, ObservationTable
from diffusion_lab.inference.rollout import Rollout, default_members_per_call
from diffusion_lab.inference.trained import TrainedModel
from diffusion_lab.noise import MemberNoise
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.dates import parse_date

if TYPE_CHECKING:
    import xarray as xr

    from diffusion_lab.stores.store import Store

Params = Mapping[str, Any] | None


class Forecaster(TrainedModel):
    """A trained model that makes forecasts; arguments and attributes as `TrainedModel`."""

    def predict_step(
        self,
        batch: Tensor,
        noise_scheduler_params: Params = None,
        sampler_params: Params = None,
        *,
        seed: int = 0,
    ) -> Tensor:
        """Make one forecast step from a batch of input states (the guide's `predict_step`).

        Args:
            batch: (batch, time, ensemble, grid, input variable), physical units.
            noise_scheduler_params: schedule options to override, such as {"num_steps": 20}.
            sampler_params: sampler options to override, such as {"S_churn": 2.5}.
            seed: of the noise, which is keyed by the position in the batch.

        Returns:
            (batch, 1, ensemble, grid, output variable), physical units.

        Raises:
            ValueError: an unknown key or a value out of range.
        """
        settings = self.settings.override(noise_scheduler_params, sampler_params)
        starts, members = list(range(len(batch))), range(batch.shape[2])
        noise = MemberNoise(seed, self.noise_field).at(starts, 1, members, self.noise_shape, self.device)
        x = self.input_normalizer.normalise(batch.to(self.device))
        with torch.inference_mode():
            target = settings.sample(self.model.denoiser(x), noise)
            state = self.model.to_state(target, x[:, -1:])
        return self.output_normalizer.denormalise(state).cpu()

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
            members: their number, or which: member 3 is the same in every ensemble.
            seed: of the whole ensemble.
            data: see `reader`.
            noise_scheduler_params: schedule options to override.
            sampler_params: sampler options to override.
            members_per_call: members in one network call; fewer need less memory.

        Returns:
            Dataset with dims (time, ensemble, cell), time being the valid time of each step.

        Raises:
            KeyError: the store lacks a date or a variable.
            ValueError: an unknown key, a value out of range, a store on other cells, or missing values.
        """
        settings = self.settings.override(noise_scheduler_params, sampler_params)
        return self.rollout(date, steps, members, seed, settings, data, members_per_call).dataset()

    def analyse(
        self,
        date: str | np.datetime64,
        observations: ObservationTable,
        steps: int = 1,
        members: int | Sequence[int] = 16,
        seed: int = 0,
        settings: SamplingSettings | None = None,
        data: Store | str | Path | None = None,
        method: Method = MMPS,
        *,
        members_per_call: int | None = None,
    ) -> xr.Dataset:
        """Forecast an ensemble step by step, and draw each step from its posterior given observations.

        With one step this is an analysis one step after `date`. With several it is a cycle: each step starts
        from the analyses of the step before.

        `observations` (see `read_observations`) are each at the valid time of one of the steps, and `method`
        makes the guided denoiser, such as `guidance.MMPS` or `guidance.DPS`. Other arguments, results and
        errors as `forecast` and `rollout`.

        Raises:
            ValueError: an observation is at another time, of another variable, or outside the grid.
        """
        rollout = self.rollout(date, steps, members, seed, settings, data, members_per_call)
        valid = rollout.date + np.arange(1, steps + 1) * self.step
        if len(off := observations.select(~np.isin(observations.time, valid))):
            raise ValueError(
                f"{len(off)} observations are at other times than the forecast, the first at {off.time[0]}; "
                f"it is valid at {', '.join(map(str, valid[:3]))}{', …' if steps > 3 else ''}"
            )
        guide = Assimilation(observations, self.variables.output, self.latitudes, self.longitudes, method)
        return replace(rollout, guide=guide).dataset()

    def rollout(
        self,
        date: str | np.datetime64,
        steps: int,
        members: int | Sequence[int],
        seed: int = 0,
        settings: SamplingSettings | None = None,
        data: Store | str | Path | None = None,
        members_per_call: int | None = None,
        wrap: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
    ) -> Rollout:
        """A forecast that is computed as it is read: by solver steps, by states, or as a whole.

        Arguments as `forecast` and `Rollout`; by default, the checkpoint's settings.

        Raises:
            KeyError: the store lacks the date or a variable.
            ValueError: an invalid date, a store on other cells, or as `Rollout`.
        """
        if members_per_call is None:
            members_per_call = default_members_per_call(self.device)
        chosen = range(members) if isinstance(members, int) else list(members)
        reader, start = self.reader(data), parse_date(date).astype("datetime64[s]")
        settings = settings or self.settings
        return Rollout(self, reader, start, steps, chosen, seed, settings, members_per_call, wrap)


def load_forecaster(
    checkpoint: str | Path, device: str = "auto", *, accelerate: bool = True, compile: bool = False
) -> Forecaster:
    """Load a released checkpoint, or your own.

    Args:
        checkpoint: the name of a released one such as "example-tendency", or the path of a .safetensors file.
        device: "cpu", "cuda", "cuda:1", …, or "auto" for the GPU if there is one.
        accelerate: on a CPU, use the faster blocks of `acceleration.accelerate`.
        compile: on a GPU, compile the blocks: about a minute at the first forecast, then faster network
            calls.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the file is damaged or not a release checkpoint, or there is no such device.
    """
    from diffusion_lab.acceleration import accelerate as accelerate_blocks
    from diffusion_lab.acceleration import compile_blocks
    from diffusion_lab.inference.release import load_release

    released = checkpoints()
    path = Path(released.get(str(checkpoint), checkpoint))
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {str(checkpoint)!r}; give a path, or one of {', '.join(released)}"
        )
    release, model, latitudes, longitudes = load_release(path)
    model = model.to(choose_device(device))
    if next(model.parameters()).device.type == "cpu":
        if accelerate:
            accelerate_blocks(model)
    elif compile:
        compile_blocks(model)
    return Forecaster(release, model, latitudes, longitudes)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the GPU if there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch's words differ by build
        said = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device = {name!r}: {said}; give cpu, cuda, cuda:1, … or auto") from None
