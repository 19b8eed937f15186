"""The tuner's pictures: maps and the denoising film on canvases, charts as images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ipywidgets import HTML, Dropdown, GridBox, HBox, IntSlider, Play, VBox, jsdlink
from matplotlib.axes import Axes

from diffusion_lab.plots.style import DIFFERENCE, SPREAD
from diffusion_lab.widgets.canvas import FieldCanvas
from diffusion_lab.widgets.chart_image import QuickChart
from diffusion_lab.widgets.tuner import charts
from diffusion_lab.widgets.tuner.result import Place, Result
from diffusion_lab.widgets.tuner.session import Frame
from diffusion_lab.widgets.tuner.setting import Setting

_CHART = 2.46, 2.3  # inches
_GRID = {"grid_template_columns": "repeat(3, minmax(200px, 300px))", "grid_gap": "4px 8px"}


class Pictures(VBox):
    """Six canvases, three charts, and the choice of variable, lead and member."""

    def __init__(self) -> None:
        self.canvases = {
            "truth": FieldCanvas("truth"),
            "mean": FieldCanvas("ensemble mean"),
            "error": FieldCanvas("mean − truth", cmap=DIFFERENCE),
            "member": FieldCanvas("member 0"),
            "spread": FieldCanvas("spread", cmap=SPREAD),
            "film": FieldCanvas("D(y; σ)"),
        }
        for canvas in self.canvases.values():
            canvas.layout.width = "100%"
        self.charts = {
            "schedule": QuickChart(*_CHART, charts.dress_schedule),
            "ranks": QuickChart(*_CHART, charts.dress_ranks),
            "spectrum": QuickChart(*_CHART, charts.dress_spectrum),
        }
        for chart in self.charts.values():
            chart.layout.width = "100%"
        self.variable = Dropdown(description="variable", options=["–"], **_chooser(180))
        self.lead = IntSlider(description="lead", min=1, max=1, **_chooser(200))
        self.member = IntSlider(description="member", min=0, max=0, **_chooser(200))
        self.at = IntSlider(description="solver step", min=1, max=1, layout={"width": "220px"})
        self.play = Play(min=1, max=1, interval=150, show_repeat=False)
        # One way: linked both ways, the page answers each step of a run with the one before, and may win.
        jsdlink((self.play, "value"), (self.at, "value"))
        film = HBox([HTML("<b>denoising film</b>"), self.play, self.at], layout={"align_items": "center"})
        choice = HBox([self.variable, self.lead, self.member], layout={"flex_flow": "row wrap"})
        maps, below = (GridBox(list(shown.values()), layout=_GRID) for shown in (self.canvases, self.charts))
        super().__init__([choice, maps, film, below])
        self.layout.flex, self.layout.min_width = "1 1 0", "616px"

    @property
    def dark(self) -> bool:
        """Whether the page has a dark theme."""
        return self.canvases["truth"].dark

    def place(self, place: Place) -> None:
        """Put the canvases on the map."""
        raster = place.raster
        for canvas in self.canvases.values():
            canvas.place(raster.rows, raster.columns, place.coastlines, raster.stretch)

    def offer(self, variables: Sequence[str], setting: Setting) -> None:
        """Let the hand choose among what the forecast has."""
        if self.variable.options != tuple(variables):
            self.variable.options = tuple(variables)
        for slider, most in ((self.lead, setting.steps), (self.member, setting.members - 1)):
            slider.max = max(most, slider.min)
            slider.disabled = most == slider.min

    def show_truth(self, truth: np.ndarray, place: Place, variables: Sequence[str], units: str) -> None:
        """Draw what will come true, which sets the colours of the fields; (lead, cell, output variable)."""
        variable = self.variable.value
        field = truth[min(self.lead.value, len(truth)) - 1, :, list(variables).index(variable)]
        limits = field_limits(field) if np.isfinite(field).any() else None
        title = f"{variable}: truth" if limits else f"{variable}: truth not in the store"
        self.canvases["truth"].put(place.raster(field), limits, title=title, units=units)

    def show(self, result: Result) -> None:
        """Draw the maps of a result."""
        variable, lead = self.variable.value, min(self.lead.value, result.setting.steps)
        fields, truth = result.fields(variable, lead), result.true_field(variable, lead)
        member = min(self.member.value, len(result.members) - 1)
        mean, units = fields.mean(0), result.units(variable)
        spread = fields.std(0, ddof=1) if len(fields) > 1 else np.full_like(mean, np.nan)
        colours = field_limits(truth if np.isfinite(truth).any() else mean)
        self.show_truth(result.truth, result.place, result.variables, units)
        most, widest = _round_up(np.abs(mean - truth)), _round_up(spread)
        count = f"{len(fields)} members" if len(fields) > 1 else "1 member"
        for name, field, limits, title in (
            ("mean", mean, colours, f"mean of {count}"),
            ("error", mean - truth, (-most, most), "mean − truth"),
            ("member", fields[member], colours, f"member {result.members[member]}"),
            ("spread", spread, (0.0, widest), f"spread of {count}"),
        ):
            self.canvases[name].put(result.place.raster(field), limits, title=title, units=units)

    def show_film(self, result: Result, step: int) -> None:
        """Draw D(y; σ) of a finished film after a solver step, from 1."""
        variable, lead = self.variable.value, min(self.lead.value, result.setting.steps)
        film = result.film[lead - 1, ..., result.variables.index(variable)]
        step = min(step, len(film))
        sigma = result.setting.sampling(result.forecaster).sigmas()[step - 1]
        self._put_film(result.place, film[step - 1], result.units(variable), float(sigma))

    def show_frame(self, frame: Frame, place: Place, variables: Sequence[str], units: str) -> None:
        """Draw the denoiser's newest answer."""
        self.at.max = self.play.max = frame.num_steps
        self.at.value = frame.step
        field = frame.denoised[:, list(variables).index(self.variable.value)]
        self._put_film(place, field, units, frame.sigma)

    def rest(self, result: Result) -> None:
        """Stay at the end of a finished film, of which quick steps were not shown, or none of a kept one."""
        steps = result.film.shape[1]
        self.at.max = self.play.max = steps
        # Also of the player, whose link would take a page that loads back to the first step.
        self.at.value = self.play.value = steps
        self.show_film(result, steps)

    def _put_film(self, place: Place, field: np.ndarray, units: str, sigma: float) -> None:
        known = [c for c in (self.canvases["truth"], self.canvases["mean"]) if np.isfinite(c.values).any()]
        limits = known[0].limits if known else field_limits(field)
        title = f"D(y; σ = {sigma:.3g}), member 0"
        self.canvases["film"].put(place.raster(field), tuple(limits), title=title, units=units)

    def draw_schedule(self, schedules: dict[str, tuple[Setting, np.ndarray]]) -> None:
        """The noise levels of the setting and of the pinned ones, and where churn acts."""
        self._draw("schedule", lambda ax: charts.schedule(ax, schedules))

    def draw_scores(self, results: dict[str, Result]) -> None:
        """Rank histogram and spectrum; the first is the present one, the others are pinned."""
        view = self.variable.value, self.lead.value
        self._draw("ranks", lambda ax: charts.ranks(ax, results, *view))
        self._draw("spectrum", lambda ax: charts.spectrum(ax, results, *view))

    def _draw(self, name: str, fill: Callable[[Axes], None]) -> None:
        dark = self.dark
        self.charts[name].draw(fill, lambda ax: charts.tint(ax, dark), "dark" if dark else "light")


def field_limits(field: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest value; equal for every setting where they are those of the truth."""
    return float(np.nanmin(field)), float(np.nanmax(field))


def _round_up(field: np.ndarray) -> float:
    """A round number above nearly all values, so that the colours stay as they are while settings change."""
    if not np.isfinite(field).any():
        return 1.0
    most = max(float(np.nanquantile(field, 0.995)), 1e-12)
    power = 10.0 ** np.floor(np.log10(most))
    return float(power * next(round_ for round_ in (1, 1.5, 2, 3, 5, 7, 10) if round_ * power >= most))


def _chooser(width: int) -> dict:
    return {"layout": {"width": f"{width}px"}, "style": {"description_width": "58px"}}
