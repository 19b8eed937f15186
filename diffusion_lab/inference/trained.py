"""A trained network with its variables, normalisation, cells, noise and sampling defaults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffusion_lab.assets import store_path, stores
from diffusion_lab.denoisers import Denoiser
from diffusion_lab.noise import SphericalNoise
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.dates import lead_timedelta
from diffusion_lab.stores.states import Normalizer, StateReader
from diffusion_lab.stores.variables import Variables

if TYPE_CHECKING:
    from diffusion_lab.inference.release import Release
    from diffusion_lab.stores.store import Store


class ForecastModel(Protocol):
    """What a forecast requires of a network: met by those in `models` and by `AnemoiModel`.

    Attributes:
        multistep_input: number of past states in the input.
    """

    multistep_input: int

    def denoiser(self, x: Tensor) -> Denoiser:
        """Bind the past states x (batch, time, ensemble, grid, input variable), normalised."""
        ...

    def to_state(self, target: Tensor, reference: Tensor) -> Tensor:
        """The normalised next state, from what was denoised and the last input state."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights, on the device of the network."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The weights and buffers by name."""
        ...


class TrainedModel:
    """A trained network and what its checkpoint says about it.

    Args:
        release: the document of the checkpoint.
        model: the network, on the device it is to run on.
        latitudes: (cell,) degrees.
        longitudes: (cell,) degrees.
        data: the store that forecasts start from unless told otherwise; None for the checkpoint's own.

    Attributes:
        device: of the network.
        variables: their roles and order.
        settings: the sampling defaults.
        noise_field: the noise used in training; None for white noise.
        step: the forecast step, timedelta64.
        input_normalizer: of the input variables.
        output_normalizer: of the output variables.
        forcing_normalizer: of the forcings.
    """

    def __init__(
        self,
        release: Release,
        model: ForecastModel,
        latitudes: NDArray[np.float64],
        longitudes: NDArray[np.float64],
        data: Store | None = None,
    ) -> None:
        self.release, self.model, self.data = release, model, data
        self.latitudes, self.longitudes = latitudes, longitudes
        self.device = next(model.parameters()).device
        self.step = lead_timedelta(release.step)
        self.settings = SamplingSettings(**release.inference_defaults)
        band = release.noise_max_wavenumber
        self.noise_field = None if band is None else SphericalNoise(latitudes, longitudes, band)
        info = {v.name: v for v in release.variables}
        roles = ("prognostic", "forcing", "diagnostic")
        self.variables = Variables(*(tuple(v.name for v in info.values() if v.role == r) for r in roles))

        def normalizer(names: Sequence[str]) -> Normalizer:
            return Normalizer([info[n].mean for n in names], [info[n].stdev for n in names])

        self.input_normalizer = normalizer(self.variables.input)
        self.output_normalizer = normalizer(self.variables.output)
        self.forcing_normalizer = normalizer(self.variables.forcing)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Shape of one member's noise: (1, cell, output variable)."""
        return (1, len(self.latitudes), len(self.variables.output))

    def reader(self, data: Store | str | Path | None = None) -> StateReader:
        """A reader of the store with the initial states.

        Args:
            data: an open store, its path, or the name of a shipped store; None for the one given to the
                class, or the one the checkpoint names, if it is shipped. No other path in it is opened.

        Raises:
            FileNotFoundError: there is no such store.
            KeyError: the store lacks a variable.
            ValueError: the store is on other cells, or none is given and the checkpoint's is not shipped.
        """
        from diffusion_lab.stores.store import Store, open_store

        data = data if data is not None else self.data
        if data is None and self.release.store not in stores():
            raise ValueError(
                f"the checkpoint was trained on {self.release.store!r}, which does not ship "
                f"with diffusion_lab; give the store to start from, for example data={self.release.store}"
            )
        store = data if isinstance(data, Store) else open_store(store_path(str(data or self.release.store)))
        remedy = "give data on the model's own grid"
        if (there := len(store.latitudes)) != (here := len(self.latitudes)):
            raise ValueError(
                f"the model was trained on other cells ({here}) than those of {store.path!r} ({there}); "
                f"{remedy}"
            )
        off = np.abs([self.latitudes - store.latitudes, self.longitudes - store.longitudes]).max()
        if off > 1e-4:
            raise ValueError(
                f"the model was trained on other cells than those of {store.path!r}: as many, but their "
                f"coordinates differ by up to {off:.4g} degrees; {remedy}"
            )
        return StateReader(store, self.variables)

    def inputs(self, reader: StateReader, date: np.datetime64) -> Tensor:
        """The normalised input states of a forecast from `date`, (1, time, 1, cell, input variable).

        They are those of member 0 of the store, on the model's device.

        Raises:
            KeyError: the store lacks one of the dates.
            ValueError: one of the states has missing values.
        """
        dates = date + np.arange(1 - self.model.multistep_input, 1) * self.step
        states = torch.from_numpy(reader.inputs(dates)[:, :1])[None]
        if not torch.isfinite(states).all():
            raise ValueError(
                f"the input states at {dates.astype('datetime64[m]').tolist()} hold missing values"
            )
        return self.input_normalizer.normalise(states).to(self.device)

    def next_input(self, state: Tensor, reader: StateReader, date: np.datetime64) -> Tensor:
        """A forecast state with the forcings of its valid time, (1, 1, ensemble, cell, input variable)."""
        forcings = torch.from_numpy(reader.forcings([date]))[:, None, None]
        forcings = self.forcing_normalizer.normalise(forcings).to(state)
        prognostic = state[..., : len(self.variables.prognostic)]
        return torch.cat([prognostic, forcings.expand(-1, -1, state.shape[2], -1, -1)], dim=-1)

    def state(self, target: Tensor, reference: Tensor) -> Tensor:
        """The state in physical units that belongs to a tensor of the sampler, differentiably.

        Args:
            target: (1, 1, ensemble, cell, output variable) normalised state or tendency.
            reference: (1, 1, ensemble, cell, input variable) the last input state, normalised.

        Returns:
            The shape of target.
        """
        return self.output_normalizer.denormalise(self.model.to_state(target.float(), reference))

    @torch.no_grad()
    def physical(self, target: Tensor, reference: Tensor) -> NDArray[np.float32]:
        """As `state`, without gradients: (ensemble, cell, output variable)."""
        return self.state(target, reference)[0, 0].cpu().numpy()
