"""The tuner's pictures: maps and the denoising film on canvases, charts as images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ipywidgets import HTML, Box, Dropdown, VBox
from matplotlib.axes import Axes
from numpy.typing import NDArray

from diffusion_lab.plots.style import DIFFERENCE, SPREAD
from diffusion_lab.widgets.canvas import FieldCanvas
from diffusion_lab.widgets.chart_image import QuickChart
from diffusion_lab.widgets.slider import Slider
from diffusion_lab.widgets.tuner import charts
from diffusion_lab.widgets.tuner.result import Place, Result
from diffusion_lab.widgets.tuner.session import Frame
from diffusion_lab.widgets.tuner.setting import Setting

_CHART = 2.46, 2.3  # inches


class Pictures(VBox):
    """Scoreboard, the choice of what is shown, maps, below them those of a pinned setting, and charts."""

    def __init__(self) -> None:
        self.canvases = {
            "truth": FieldCanvas("truth"),
            "member": FieldCanvas("member 0"),
            "film": FieldCanvas("D(y; σ)"),
            "mean": FieldCanvas("ensemble mean"),
            "error": FieldCanvas("mean − truth", cmap=DIFFERENCE),
            "spread": FieldCanvas("spread", cmap=SPREAD),
        }
        self.pinned = {
            "mean": FieldCanvas("ensemble mean"),
            "error": FieldCanvas("mean − truth", cmap=DIFFERENCE),
            "spread": FieldCanvas("spread", cmap=SPREAD),
        }
        self.charts = {
            "schedule": QuickChart("noise level at each solver step", *_CHART, charts.dress_schedule),
            "ranks": QuickChart("rank histogram", *_CHART, charts.dress_ranks),
            "spectrum": QuickChart(
                "power of the members over that of the truth", *_CHART, charts.dress_spectrum
            ),
        }
        for picture in (*self.canvases.values(), *self.pinned.values(), *self.charts.values()):
            picture.layout.width = "100%"
        self.variable = Dropdown(
            description="variable",
            options=["–"],
            tooltip="whose maps and scores are shown",
            layout={"width": "190px"},
            style={"description_width": "58px"},
        )
        self.lead = Slider("lead", [1], 1, help="forecast step that is shown", width=210)
        self.member = Slider("member", [0], 0, help="member that is shown and watched", width=210)
        self.at = Slider("solver step", [1], 1, help="of the denoising film D(y; σ)", play=150, width=300)
        choice, maps, self._pins, below = Box(), Box(), Box(), Box()
        choice.children = (self.variable, self.lead, self.member, self.at)
        maps.children, self._pins.children = tuple(self.canvases.values()), tuple(self.pinned.values())
        below.children = tuple(self.charts.values())
        choice.add_class("dl-choice")
        for grid in (maps, self._pins, below):
            grid.add_class("dl-maps")
        self._pins.layout.display = "none"
        self.table = HTML()
        super().__init__([self.table, choice, maps, self._pins, below])
        self.add_class("dl-shown")
        self.draw_scores({})  # empty axes keep the place

    @property
    def dark(self) -> bool:
        """Whether the page has a dark theme."""
        return self.canvases["truth"].dark

    def place(self, place: Place) -> None:
        """Put the canvases on the map."""
        raster = place.raster
        for canvas in (*self.canvases.values(), *self.pinned.values()):
            canvas.place(raster.rows, raster.columns, place.coastlines, raster.stretch)

    def offer(self, variables: Sequence[str], setting: Setting) -> None:
        """Let the hand choose among what the forecast has."""
        if self.variable.options != tuple(variables):
            self.variable.options = tuple(variables)
        for slider, first, most in ((self.lead, 1, setting.steps), (self.member, 0, setting.members - 1)):
            slider.restrict(range(first, most + 1))
            slider.disabled = most == first
            slider.value = min(slider.value, most)

    def show_truth(self, truth: NDArray, place: Place, variables: Sequence[str], units: str) -> None:
        """Draw what will come true, which sets the colours of the fields; (lead, cell, output variable)."""
        variable = self.variable.value
        field = truth[min(self.lead.value, len(truth)) - 1, :, list(variables).index(variable)]
        limits = field_limits(field) if np.isfinite(field).any() else None
        title = f"{variable}: truth" if limits else f"{variable}: truth not in the store"
        self.canvases["truth"].put(place.raster(field), limits, title=title, units=units)

    def show(self, result: Result, pins: Mapping[str, Result], beside: str) -> None:
        """Draw the maps of a result and, below them, those of the pinned result named `beside`.

        While something is pinned, the first pin sets the colours of errors and spreads, so that maps compare.
        """
        variable, lead = self.variable.value, min(self.lead.value, result.setting.steps)
        self.show_truth(result.truth, result.place, result.variables, result.units(variable))
        number = min(self.member.value, len(result.members) - 1)
        field = result.fields(variable, lead)[number]
        title = f"member {result.members[number]}"
        self.canvases["member"].put(
            result.place.raster(field),
            field_colours(result, variable, lead),
            title=title,
            units=result.units(variable),
        )
        scale = colour_scale(next(iter(pins.values()), result), variable, lead)
        self._draw_ensemble(self.canvases, result, scale)
        pin = pins.get(beside)
        self._pins.layout.display = "none" if pin is None else ""
        if pin is not None and variable in pin.variables:
            self._draw_ensemble(self.pinned, pin, scale, f"{beside}: ")

    def _draw_ensemble(
        self, canvases: Mapping[str, FieldCanvas], result: Result, scale: tuple[float, float], name: str = ""
    ) -> None:
        variable, lead = self.variable.value, min(self.lead.value, result.setting.steps)
        mean, error, spread = summaries(result, variable, lead)
        members = f"{len(result.members)} member{'s' if len(result.members) > 1 else ''}"
        for key, field, limits, title in (
            ("mean", mean, field_colours(result, variable, lead), f"mean of {members}"),
            ("error", error, (-scale[0], scale[0]), "mean − truth"),
            ("spread", spread, (0.0, scale[1]), f"spread of {members}"),
        ):
            canvases[key].put(
                result.place.raster(field), limits, title=name + title, units=result.units(variable)
            )

    def mark_as_old(self) -> None:
        """Say of maps that they are not of the setting that the controls show."""
        for name in ("member", "mean", "error", "spread"):
            self.canvases[name].old = True

    def show_film(self, result: Result, step: int) -> None:
        """Draw D(y; σ) of a finished film after a solver step, from 1."""
        variable, lead = self.variable.value, min(self.lead.value, result.setting.steps)
        member, film = result.film(self.member.value, variable, lead)
        step = min(step, len(film))
        sigma = result.setting.sampling(result.forecaster).sigmas()[step - 1]
        self._put_film(result.place, film[step - 1], result.units(variable), float(sigma), member)

    def show_frame(self, frame: Frame, place: Place, variables: Sequence[str], units: str) -> None:
        """Draw the denoiser's newest answer."""
        assert frame.denoised is not None
        self._wind(frame.step, frame.num_steps)
        field = frame.denoised[:, list(variables).index(self.variable.value)]
        self._put_film(place, field, units, frame.sigma, frame.member)

    def rest(self, result: Result) -> None:
        """Stay at the end of a finished film, of which quick steps were not shown, or none of a kept one."""
        self._wind(result.setting.num_steps, result.setting.num_steps)
        self.show_film(result, result.setting.num_steps)

    def _wind(self, step: int, num_steps: int) -> None:
        self.at.restrict(range(1, num_steps + 1))
        self.at.value = step

    def _put_film(self, place: Place, field: NDArray, units: str, sigma: float, member: int) -> None:
        known = [c for c in (self.canvases["truth"], self.canvases["mean"]) if np.isfinite(c.values).any()]
        limits = (known[0].limits[0], known[0].limits[1]) if known else field_limits(field)
        title = f"D(y; σ = {sigma:.3g}), member {member}"
        self.canvases["film"].put(place.raster(field), limits, title=title, units=units)

    def draw_schedule(self, schedules: dict[str, tuple[Setting, NDArray]]) -> None:
        """The noise levels of the setting and of the pinned ones, and where churn acts."""
        self._draw("schedule", lambda ax: charts.schedule(ax, schedules))

    def draw_scores(self, results: dict[str, Result]) -> None:
        """Rank histogram and spectrum; the first is the present one, the others are pinned."""
        view = self.variable.value, self.lead.value
        self._draw("ranks", lambda ax: charts.ranks(ax, results, *view))
        self._draw("spectrum", lambda ax: charts.spectrum(ax, results, *view))

    def _draw(self, name: str, fill: Callable[[Axes], Any]) -> None:
        dark = self.dark
        self.charts[name].draw(fill, lambda ax: charts.tint(ax, dark), "dark" if dark else "light")


def summaries(result: Result, variable: str, lead: int) -> tuple[NDArray, NDArray, NDArray]:
    """(cell,) each: the mean of the members, mean − truth, and the spread, which is NaN for one member."""
    fields = result.fields(variable, lead)
    mean = fields.mean(0)
    spread = fields.std(0, ddof=1) if len(fields) > 1 else np.full_like(mean, np.nan)
    return mean, mean - result.true_field(variable, lead), spread


def field_limits(field: NDArray) -> tuple[float, float]:
    """The smallest and the largest value."""
    return float(np.nanmin(field)), float(np.nanmax(field))


def field_colours(result: Result, variable: str, lead: int) -> tuple[float, float]:
    """Limits of a field's colours: those of the truth, equal for all settings, or if unknown of the mean."""
    truth = result.true_field(variable, lead)
    return field_limits(truth if np.isfinite(truth).any() else result.fields(variable, lead).mean(0))


def colour_scale(result: Result, variable: str, lead: int) -> tuple[float, float]:
    """Where the colours of errors and of spreads end."""
    _, error, spread = summaries(result, variable, min(lead, result.setting.steps))
    return _round_up(np.abs(error)), _round_up(spread)


def _round_up(field: NDArray) -> float:
    """A round number above nearly all values, so that the colours stay as they are while settings change."""
    if not np.isfinite(field).any():
        return 1.0
    most = max(float(np.nanquantile(field, 0.995)), 1e-12)
    power = 10.0 ** np.floor(np.log10(most))
    return float(power * next(round_ for round_ in (1, 1.5, 2, 3, 5, 7, 10) if round_ * power >= most))
