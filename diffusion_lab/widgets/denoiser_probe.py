"""`DenoiserProbe`: what a trained denoiser makes of a known state under noise of any level."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from ipywidgets import HBox, Widget
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_lab.graphs import area_weights
from diffusion_lab.inference import Forecaster, load_forecaster
from diffusion_lab.inference.trained import ForecastModel
from diffusion_lab.noise import MemberNoise
from diffusion_lab.objectives import DiffusionObjective, MSELoss
from diffusion_lab.plots import field_map
from diffusion_lab.plots.style import BLUE, DIFFERENCE, VERMILION, level_axis, tidy
from diffusion_lab.stores.dates import spread_out
from diffusion_lab.stores.module import ForecastDataset, forecast_starts
from diffusion_lab.stores.store import Store
from diffusion_lab.widgets.canvas import FieldCanvas
from diffusion_lab.widgets.panel import Panel, geometric, menu
from diffusion_lab.widgets.raster import Raster
from diffusion_lab.widgets.slider import Slider

TITLES = {
    "clean": "clean target",
    "noisy": "noisy input y",
    "denoised": "denoised D(y; σ)",
    "error": "error D − clean",
}


class ProbedModel(ForecastModel, Protocol):
    """What a probe asks of a network besides."""

    def to_target(self, state: Tensor, reference: Tensor) -> Tensor:
        """What the network learns to denoise, of a normalised state and the last input state."""


class DenoiserProbe(Panel):
    """Pick a date and a level σ: the noisy input, the denoised field, its error, and the loss at all levels.

    The target is what the network learned to predict: the next state or, in the tendency variant, the change
    to it, in units of its standard deviation.

    Args:
        checkpoint: a released name, a path, or a loaded forecaster.
        data: an open store, its path, or a shipped store's name; None for the one the checkpoint names.

    Attributes:
        fields: "clean", "noisy", "denoised" and "error" of the chosen variable, (cell,) each.
        loss: the training loss at the chosen level, a mean over variables and the sphere.
        losses: the same at each of `levels`.
    """

    def __init__(
        self, checkpoint: str | Path | Forecaster = "example-tendency", data: Store | str | Path | None = None
    ) -> None:
        self.forecaster = checkpoint if isinstance(checkpoint, Forecaster) else load_forecaster(checkpoint)
        model, variables = cast(ProbedModel, self.forecaster.model), self.forecaster.variables
        self.reader = self.forecaster.reader(data)
        store = self.reader.store
        self.loss_function = MSELoss(torch.as_tensor(area_weights(store.latitudes, store.longitudes)))
        described: Any = getattr(model, "architecture", model)  # Anemoi's networks have it themselves
        self.objective = DiffusionObjective(sigma_data=described.sigma_data)
        self.levels = geometric(0.02, 100.0, 3)
        self.raster = Raster(store.latitudes, store.longitudes, store.field_shape)
        self.canvases = {key: FieldCanvas(title, cmap=DIFFERENCE) for key, title in TITLES.items()}
        self._date = ""
        starts = forecast_starts(store, self.forecaster.step, model.multistep_input, None)
        dates = np.datetime_as_string(spread_out(starts, 74), unit="h").tolist()
        self.land = np.zeros(len(store.latitudes))
        if "lsm" in variables.forcing:
            self.land = self.reader.forcings([starts[-1]])[0, :, variables.forcing.index("lsm")]
        for canvas in self.canvases.values():
            coastlines = self.raster.coastlines(self.land)
            canvas.place(self.raster.rows, self.raster.columns, coastlines, self.raster.stretch)
        controls = {
            "date": Slider("date", dates, dates[-1]),
            "variable": menu("variable", variables.output, variables.output[0]),
            "sigma": Slider("σ", geometric(0.02, 100.0, 12), 1.0),
        }
        super().__init__(controls, size=(6.4, 3.0))
        maps = HBox(list(self.canvases.values()), layout={"flex_flow": "row wrap", "grid_gap": "8px 16px"})
        self.children: tuple[Widget, ...] = (*self.children, maps)

    def summary(self) -> str:
        """The date, the variable, the level and the loss."""
        date, variable, sigma = self.settings.values()
        return f"DenoiserProbe({date}, {variable}, σ = {sigma:g}: loss {self.loss:.2g})"

    def figure(self) -> Figure:
        """The four maps over the loss curve."""
        figure = Figure(figsize=(12, 4.6), layout="constrained")
        axes = figure.subplot_mosaic([list(TITLES), ["loss"] * 4], height_ratios=(1, 1))
        store = self.reader.store
        for key, title in TITLES.items():
            artist = field_map(
                axes[key],
                self.fields[key],
                store.latitudes,
                store.longitudes,
                store.field_shape,
                land=self.land,
                cmap=DIFFERENCE,
                limits=self._limits(key),
            )
            axes[key].set_title(title, fontsize="medium")
            figure.colorbar(artist, ax=axes[key], location="bottom", aspect=30)
        self._draw_losses(axes["loss"], self.settings["sigma"])
        figure.suptitle(self.summary())
        return figure

    def draw(self, figure: Figure, **settings: Any) -> None:
        """Denoise, colour the maps and mark the level on the loss curve."""
        date, variable, sigma = settings["date"], settings["variable"], settings["sigma"]
        if date != self._date:
            self._read(np.datetime64(date, "s"))
            self.losses = [self._denoise(level)[2] for level in self.levels]
            self._date = date
        noisy, denoised, self.loss = self._denoise(sigma)
        fields = (self._target, noisy, denoised, denoised - self._target)
        column = self.forecaster.variables.output.index(variable)
        self.fields = {
            key: f[0, 0, 0, :, column].cpu().numpy() for key, f in zip(TITLES, fields, strict=True)
        }
        for key, canvas in self.canvases.items():
            canvas.put(self.raster(self.fields[key]), self._limits(key), title=TITLES[key])
        self._draw_losses(figure.subplots(), sigma)

    def _read(self, date: np.datetime64) -> None:
        """Bind the denoiser to the past of a date; keep the target and one draw of noise."""
        forecaster, model = self.forecaster, cast(ProbedModel, self.forecaster.model)
        self.reader.store.index(date)  # where it is lacking, the error names the date, not an earlier input
        dataset = ForecastDataset(self.reader, np.array([date]), forecaster.step, model.multistep_input)
        x, state = (part[None, :, :1].to(forecaster.device) for part in dataset[0])
        with torch.inference_mode():
            self._target = model.to_target(state, x[:, -1:])
            self._denoiser = model.denoiser(x)
        shape = (1, *self._target.shape[3:])
        noise = MemberNoise(0, forecaster.noise_field).at(
            date, forecaster.step, [0], shape, forecaster.device
        )
        self._noise = noise(0)

    @torch.inference_mode()
    def _denoise(self, sigma: float) -> tuple[Tensor, Tensor, float]:
        """The noisy input y = target + σε, D(y; σ), and the training loss."""
        level = torch.full((1, 1, 1, 1, 1), sigma)
        y = self._target + sigma * self._noise
        denoised = self._denoiser(y, level.to(y))
        weights = self.objective.pre_loss_weights(level)
        return y, denoised, self.loss_function(denoised.cpu(), self._target.cpu(), weights).item()

    def _limits(self, key: str) -> tuple[float, float]:
        """Symmetric; one scale for all but the noisy input, whose noise may be anything."""
        largest = float(np.abs(self.fields["noisy" if key == "noisy" else "clean"]).max())
        return -largest, largest

    def _draw_losses(self, ax: Axes, sigma: float) -> None:
        ax.plot(self.levels, self.losses, color=BLUE, marker="o", markersize=3.5, label="this date")
        ax.axhline(1.0, color="0.5", linewidth=1, linestyle="--", label="knowing nothing: F = 0")
        ax.plot(sigma, self.loss, "o", color=VERMILION, markersize=9, label=f"σ = {sigma:g}: {self.loss:.2g}")
        level_axis(ax.xaxis)
        tidy(ax)
        ax.set_ylim(bottom=0)
        ax.set_ylabel("weighted loss [–]")
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
