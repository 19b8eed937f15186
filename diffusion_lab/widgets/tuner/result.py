"""A forecast that the tuner made, its truth and its scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from diffusion_lab.graphs import area_weights
from diffusion_lab.inference import Forecaster
from diffusion_lab.inference.labels import forecast_dataset
from diffusion_lab.stores.store import Store
from diffusion_lab.verification.ensemble import area_means, ensemble_scores
from diffusion_lab.verification.ranks import rank_table
from diffusion_lab.verification.spectra import PowerSpectrum
from diffusion_lab.widgets.raster import Raster
from diffusion_lab.widgets.tuner.setting import Setting

SCORES = ("fair_crps", "rmse", "spread_skill")


class Place:
    """Where a forecaster's cells are.

    Args:
        forecaster: whose cells.
        store: it may tell land from sea.

    Attributes:
        weights: (cell,) area weights.
        land: (cell,) land fraction; None if unknown.
        raster: cells as pixels.
        coastlines: (point, 2) in pixels, see `Raster.coastlines`.
        spectrum: of fields on the globe; None for a limited area.
    """

    def __init__(self, forecaster: Forecaster, store: Store) -> None:
        here = forecaster.latitudes, forecaster.longitudes
        self.weights = torch.as_tensor(area_weights(*here))
        self.land = store.read(0, ["lsm"])[0, 0, 0] if "lsm" in store.variables else None
        self.raster = Raster(*here, forecaster.release.field_shape)
        self.coastlines = self.raster.coastlines(np.zeros(len(here[0])) if self.land is None else self.land)
        try:
            self.spectrum: PowerSpectrum | None = PowerSpectrum(*here)
        except ValueError:
            self.spectrum = None


def units_of(forecaster: Forecaster, variable: str) -> str:
    """CF units of a variable."""
    return next(known.units for known in forecaster.release.variables if known.name == variable)


def truth_of(forecaster: Forecaster, store: Store, setting: Setting) -> NDArray[np.float32]:
    """What a store holds at the valid times of a setting: (lead, cell, variable), NaN where it ends."""
    reader = forecaster.reader(store)
    dates = np.datetime64(setting.date, "s") + np.arange(1, setting.steps + 1) * forecaster.step
    states = np.full((setting.steps, len(forecaster.latitudes), len(forecaster.variables.output)), np.nan)
    for lead, date in enumerate(dates):
        if date <= store.dates[-1]:
            states[lead] = reader.outputs([date])[0, 0]
    return states.astype(np.float32)


@dataclass(frozen=True)
class Result:
    """Members of a forecast that are ready.

    Attributes:
        setting: what was asked for.
        forecaster: who made it.
        members: their numbers.
        states: (lead, ensemble, cell, output variable), physical units.
        films: (lead, solver step, cell, output variable) by member: D(y; σ), of those that were watched.
        truth: (lead, cell, output variable), physical units; NaN where unknown.
        place: where the cells are.
        calls: network calls of a trajectory, for one forecast step.
        seconds: from the first call to the last.
        finished: whether these are all the members.
    """

    setting: Setting
    forecaster: Forecaster
    members: tuple[int, ...]
    states: NDArray[np.float32]
    films: dict[int, NDArray[np.float32]]
    truth: NDArray[np.float32]
    place: Place
    calls: int
    seconds: float
    finished: bool
    _scores: dict = field(default_factory=dict, repr=False)

    @property
    def nbytes(self) -> int:
        """Memory of the fields."""
        return self.states.nbytes + self.truth.nbytes + sum(film.nbytes for film in self.films.values())

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the output variables."""
        return self.forecaster.variables.output

    def units(self, variable: str) -> str:
        """CF units of a variable."""
        return units_of(self.forecaster, variable)

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The forecast, labelled as `Forecaster.forecast` labels it."""
        date = np.datetime64(self.setting.date, "s")
        return forecast_dataset(self.forecaster, date, list(self.members), self.states)

    def fields(self, variable: str, lead: int) -> NDArray[np.float32]:
        """(ensemble, cell) at the lead numbered from 1."""
        return self.states[lead - 1, ..., self.variables.index(variable)]

    def film(self, member: int, variable: str, lead: int) -> tuple[int, NDArray[np.float32]]:
        """The member that was watched, which is this one if possible, and (solver step, cell)."""
        member = member if member in self.films else next(iter(self.films))
        return member, self.films[member][lead - 1, ..., self.variables.index(variable)]

    def true_field(self, variable: str, lead: int) -> NDArray[np.float32]:
        """(cell,) at the lead numbered from 1; NaN where unknown."""
        return self.truth[lead - 1, :, self.variables.index(variable)]

    def scores(self, variable: str, lead: int) -> dict[str, float]:
        """Fair CRPS, RMSE of the mean and spread-skill ratio; NaN for one member or an unknown truth."""
        if (variable, lead) not in self._scores:
            self._scores[variable, lead] = self._score(variable, lead)
        return self._scores[variable, lead]

    def _score(self, variable: str, lead: int) -> dict[str, float]:
        truth = self.true_field(variable, lead)
        if len(self.members) < 2 or not np.isfinite(truth).any():
            return dict.fromkeys(SCORES, float("nan"))
        fields = torch.from_numpy(np.ascontiguousarray(self.fields(variable, lead)))[..., None]
        means = area_means(fields, torch.from_numpy(truth.copy())[:, None], self.place.weights)
        scores = ensemble_scores(means, len(self.members))
        return {name: float(scores[name]) for name in SCORES}

    def ranks(self, variable: str, lead: int) -> NDArray[np.float64]:
        """(M + 1,) relative frequency of the truth's rank among the members; NaN where unknown."""
        fields = self.fields(variable, lead).astype(np.float64)
        truth = self.true_field(variable, lead).astype(np.float64)
        return rank_table(fields, truth, self.place.weights.numpy())[0]

    def spectra(self, variable: str, lead: int) -> tuple[NDArray, NDArray, NDArray] | None:
        """Wavenumbers from 1, mean power of the members and power of the truth, units squared."""
        if self.place.spectrum is None:
            return None
        fields = torch.from_numpy(np.ascontiguousarray(self.fields(variable, lead)))
        truth = torch.from_numpy(self.true_field(variable, lead).copy())
        members = self.place.spectrum(fields).mean(0)[1:].numpy()
        return self.place.spectrum.wavenumbers[1:], members, self.place.spectrum(truth)[1:].numpy()
