"""`ScheduleExplorer`: what a noise schedule does with its steps; no model needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_lab.plots import noise_schedule
from diffusion_lab.plots.style import LINES, level_axis, tidy
from diffusion_lab.schedules import SCHEDULES
from diffusion_lab.widgets.panel import Panel, geometric
from diffusion_lab.widgets.slider import Slider

SHOWN = ("karras", "linear", "exponential", "cosine")


class ScheduleExplorer(Panel):
    """The schedules over the same range: σ at each solver step, and where on the σ axis the steps are spent.

    Args:
        num_steps: solver steps.
        sigma_max: the first level.
        sigma_min: the last above zero.
        rho: curvature of the `karras` schedule.
    """

    def __init__(
        self, num_steps: int = 20, sigma_max: float = 100.0, sigma_min: float = 0.02, rho: float = 7.0
    ) -> None:
        controls = {
            "num_steps": Slider("num_steps", range(2, 101), num_steps),
            "sigma_max": Slider("sigma_max", geometric(1.0, 1000.0), sigma_max),
            "sigma_min": Slider("sigma_min", geometric(0.001, 0.5), sigma_min),
            "rho": Slider("rho", [*np.arange(1, 10.5, 0.5).tolist(), 12.0, 15.0, 20.0], rho),
        }
        super().__init__(controls, size=(7.4, 3.2))

    @property
    def schedules(self) -> dict[str, Tensor]:
        """The levels of each schedule, by name."""
        return self._schedules(**self.settings)

    def summary(self) -> str:
        """The settings."""
        num_steps, *levels = self.settings.values()
        return "ScheduleExplorer({} steps, σ from {:g} to {:g}, ρ = {:g})".format(num_steps, *levels)

    def draw(self, figure: Figure, **settings: Any) -> None:
        """σ against the step, and a row of marks on the σ axis for each schedule."""
        schedules = self._schedules(**settings)
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        noise_schedule(left, schedules)
        _rows_of_levels(right, schedules)

    @staticmethod
    def _schedules(num_steps: int, sigma_max: float, sigma_min: float, rho: float) -> dict[str, Tensor]:
        options = {"karras": {"rho": rho}}
        return {
            name: SCHEDULES[name](num_steps, sigma_max, sigma_min, **options.get(name, {})) for name in SHOWN
        }


def _rows_of_levels(ax: Axes, schedules: dict[str, Tensor]) -> None:
    for row, levels in enumerate(schedules.values()):
        ax.plot(levels[:-1], np.full(len(levels) - 1, -row), "|", color=LINES[row], markersize=16, mew=1.5)
    ax.set_yticks([-row for row in range(len(schedules))], list(schedules))
    level_axis(ax.xaxis)
    tidy(ax)
    ax.grid(visible=False, axis="y")
    ax.margins(y=0.2)
    ax.set_title("where the steps are spent", fontsize="medium")
