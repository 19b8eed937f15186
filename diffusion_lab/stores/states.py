"""States as the network sees them: variables in its order, forcings for any date, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lab.stores.forcings import COMPUTED_FORCINGS, compute_forcing
from diffusion_lab.stores.variables import Variables

if TYPE_CHECKING:
    from diffusion_lab.stores.store import Store

Dates = Sequence[np.datetime64] | NDArray[np.datetime64]


class Normalizer:
    """(x − mean)/stdev per variable, the last dimension.

    Args:
        mean: (variable,), physical units.
        stdev: (variable,), physical units, positive.
    """

    def __init__(self, mean: Tensor | Sequence[float], stdev: Tensor | Sequence[float]) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float32)
        self.stdev = torch.as_tensor(stdev, dtype=torch.float32)
        if not (self.stdev > 0).all():
            wrong = int((~(self.stdev > 0)).nonzero()[0, 0])
            raise ValueError(f"stdev must be positive, but is {self.stdev[wrong]:g} for variable {wrong}")

    @classmethod
    def of(cls, store: Store, names: Sequence[str]) -> Normalizer:
        """Use a store's statistics; computed forcings, which are of order one, are not normalised.

        Raises:
            ValueError: naming the first variable that is constant, which cannot be normalised.
        """
        mean, stdev = np.zeros(len(names)), np.ones(len(names))
        for i, name in enumerate(names):
            if name not in COMPUTED_FORCINGS:
                column = store.variables.index(name)
                mean[i], stdev[i] = store.statistics.mean[column], store.statistics.stdev[column]
            if not stdev[i] > 0:
                raise ValueError(
                    f"{name!r} has the standard deviation {stdev[i]:g} in the store {store.path!r} and "
                    "cannot be normalised; leave it out"
                )
        return cls(torch.from_numpy(mean), torch.from_numpy(stdev))

    def normalise(self, x: Tensor) -> Tensor:
        """Physical (…, variable) → normalised."""
        return (x - self.mean.to(x)) / self.stdev.to(x)

    def denormalise(self, x: Tensor) -> Tensor:
        """Normalised (…, variable) → physical."""
        return x * self.stdev.to(x) + self.mean.to(x)


class StateReader:
    """Reads the states of a store in the network's order of variables, and computes forcings that it lacks.

    Args:
        store: an open store.
        variables: inputs and outputs of the network.

    Raises:
        KeyError: if the store lacks a variable that cannot be computed.
    """

    def __init__(self, store: Store, variables: Variables) -> None:
        self.store, self.variables = store, variables
        self._stored = [name for name in variables.input if name in store.variables]
        known = (*store.variables, *COMPUTED_FORCINGS)
        if lacking := ", ".join(name for name in variables.input + variables.diagnostic if name not in known):
            raise KeyError(f"the store {store.path!r} lacks {lacking}; it has {', '.join(store.variables)}")

    def inputs(self, dates: Dates) -> np.ndarray:
        """Input states, (time, ensemble, grid, input variable) float32, physical units."""
        stored = self._read(dates, self._stored)
        shape = (*stored.shape[:-1], len(self.variables.input))
        states = np.empty(shape, np.float32)
        for i, name in enumerate(self.variables.input):
            if name in self._stored:
                states[..., i] = stored[..., self._stored.index(name)]
            else:
                states[..., i] = self._computed(name, dates)[:, None]
        return states

    def outputs(self, dates: Dates) -> np.ndarray:
        """Output states, (time, ensemble, grid, output variable) float32, physical units."""
        return self._read(dates, self.variables.output)

    def forcings(self, dates: Dates) -> np.ndarray:
        """Forcings at any dates, (time, grid, forcing) float32, physical units.

        Raises:
            KeyError: if the store lacks a date and a forcing is neither computed nor constant.
        """
        fields = np.empty((len(dates), len(self.store.latitudes), len(self.variables.forcing)), np.float32)
        for i, name in enumerate(self.variables.forcing):
            if name in COMPUTED_FORCINGS:
                fields[..., i] = self._computed(name, dates)
            elif name in self.store.constants:
                fields[..., i] = self.store.read(int(np.flatnonzero(~self.store.missing)[0]), [name])[0, 0, 0]
            else:
                fields[..., i] = self._read(dates, [name])[:, 0, :, 0]
        return fields

    def _read(self, dates: Dates, names: Sequence[str]) -> np.ndarray:
        values = self.store.read([self.store.index(date) for date in dates], names)
        return values.transpose(0, 2, 3, 1)

    def _computed(self, name: str, dates: Dates) -> np.ndarray:
        return compute_forcing(name, np.asarray(dates), self.store.latitudes, self.store.longitudes)
