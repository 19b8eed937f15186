"""`Sampling1D`: any sampler on a 1-D target whose denoiser and flow are known, so that its errors show."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_lab.analytic import GaussianMixture
from diffusion_lab.noise import noise_like
from diffusion_lab.plots.style import BLACK, BLUE, level_axis, tidy
from diffusion_lab.samplers import SAMPLERS
from diffusion_lab.schedules import SCHEDULES
from diffusion_lab.widgets.panel import Panel, geometric, menu
from diffusion_lab.widgets.schedule_explorer import SHOWN
from diffusion_lab.widgets.slider import Slider

QUANTILES = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
DRAWN = slice(9, None, 20)  # every twentieth trajectory; the histogram takes all


@dataclass(frozen=True)
class Trajectories:
    """What a sampler did with evenly spaced quantiles of the noisiest level.

    Attributes:
        sigmas: (N + 1,) levels.
        paths: (N + 1, trajectory) states at these levels.
        calls: of the denoiser.
        distance: Wasserstein-2 distance between the ends of the paths and the target, in its units.
    """

    sigmas: Tensor
    paths: Tensor
    calls: int
    distance: float


class Sampling1D(Panel):
    """Trajectories of a sampler towards a mixture of 1-D Gaussians, over those of the exact flow.

    Args:
        target: the distribution of the clean data; None for three unequal peaks.
        sampler: a name in `SAMPLERS`.
        num_steps: solver steps.

    Attributes:
        result: the trajectories that are shown.
        flow: the true flow map: levels (level,), and where the flow takes the quantiles (level, trajectory).
    """

    result: Trajectories

    def __init__(
        self, target: GaussianMixture | None = None, sampler: str = "heun", num_steps: int = 8
    ) -> None:
        self.target = target or GaussianMixture([0.3, 0.5, 0.2], [-1.0, 0.2, 1.5], [0.15, 0.2, 0.1])
        levels = torch.tensor([0.0, *geometric(0.02, 100.0, 8)], dtype=torch.float64)
        # In one dimension paths cannot cross: the flow keeps every quantile.
        self.flow = levels, torch.stack([self.target.quantile(QUANTILES, level) for level in levels.tolist()])
        controls = {
            "sampler": menu("sampler", SAMPLERS, sampler),
            "schedule": menu("schedule", SHOWN, "karras"),
            "num_steps": Slider("num_steps", range(2, 65), num_steps),
            "sigma_max": Slider("sigma_max", geometric(1.0, 100.0, 10), 10.0),
            "sigma_min": Slider("sigma_min", geometric(0.001, 0.1, 10), 0.02),
            "rho": Slider("rho", range(1, 16), 7),
            "S_churn": Slider("S_churn", np.arange(0, 20.5, 0.5).tolist(), 0.0),
        }
        super().__init__(controls, size=(7.4, 3.8))

    def summary(self) -> str:
        """The settings, the cost and the error."""
        return f"Sampling1D({self._title})"

    def draw(self, figure: Figure, **settings: Any) -> None:
        """The paths against σ, and the histogram of where they end beside the target's density."""
        self._enable_controls(settings["sampler"], settings["schedule"])
        self.result = _sample(self.target, **settings)
        left, right = figure.subplots(1, 2, width_ratios=(2.2, 1), sharey=True)
        left.set_title(self._title, fontsize="medium")
        _draw_paths(left, self.result, *self.flow)
        _draw_ends(right, self.result.paths[-1], self.target)

    @property
    def _title(self) -> str:
        settings, result = self.settings, self.result
        return (
            f"{settings['sampler']}, {settings['num_steps']} steps: {result.calls} calls, "
            f"Wasserstein distance {result.distance:.2g}"
        )

    def _enable_controls(self, sampler: str, schedule: str) -> None:
        self.controls["S_churn"].disabled = "S_churn" not in inspect.signature(SAMPLERS[sampler]).parameters
        self.controls["rho"].disabled = schedule != "karras"


def _sample(
    target: GaussianMixture,
    sampler: str,
    schedule: str,
    num_steps: int,
    sigma_max: float,
    sigma_min: float,
    rho: float,
    S_churn: float,
) -> Trajectories:
    options = {"rho": rho} if schedule == "karras" else {}
    sigmas = SCHEDULES[schedule](num_steps, sigma_max, sigma_min, **options)
    start = target.quantile(QUANTILES, sigma_max)
    solver = SAMPLERS[sampler]
    given = {"S_churn": S_churn, "noise": noise_like(start, torch.Generator().manual_seed(0))}
    known = inspect.signature(solver).parameters
    steps = list(solver(target, start, sigmas, **{name: given[name] for name in given if name in known}))
    paths = torch.stack([start, *(step.state for step in steps)])
    error = paths[-1].sort().values - target.quantile(QUANTILES, 0.0)
    return Trajectories(sigmas, paths, steps[-1].nfe, error.square().mean().sqrt().item())


def _draw_paths(ax: Axes, result: Trajectories, levels: Tensor, flow: Tensor) -> None:
    first, last = result.sigmas[0].item(), result.sigmas[-2].item()
    foot = last / 2  # where a logarithmic axis shows σ = 0
    inside = levels <= 1.5 * first
    exact, paths = flow[inside][:, DRAWN].numpy(), result.paths[:, DRAWN].numpy()
    ax.plot(levels[inside].clamp_min(foot).numpy(), exact, color="0.75", linewidth=2.5)
    ax.plot(result.sigmas.clamp_min(foot).numpy(), paths, color=BLUE, linewidth=1, marker=".", markersize=4)
    ax.lines[0].set_label("exact flow")
    ax.lines[-1].set_label("sampler")
    level_axis(ax.xaxis)
    decades = [10.0**k for k in range(-3, 3) if foot < 0.7 * 10.0**k and 10.0**k <= first]
    ax.set_xticks([*decades, foot], [*(f"{level:g}" for level in decades), "0"])
    ax.set_xlim(1.2 * first, foot)
    ax.set_yscale("asinh", linear_width=1.0)
    ax.set_yticks([-100, -10, -1, 0, 1, 10, 100], ["−100", "−10", "−1", "0", "1", "10", "100"])
    largest = 1.1 * np.abs(paths).max()
    ax.set_ylim(-largest, largest)
    tidy(ax)
    ax.set_ylabel("state x [–]")
    ax.legend(frameon=False, fontsize="small", loc="upper right")


def _draw_ends(ax: Axes, ends: Tensor, target: GaussianMixture) -> None:
    x = np.linspace(-3, 3, 601)
    density = sum(
        w * np.exp(-(((x - m) / s) ** 2) / 2) / (s * np.sqrt(2 * np.pi))
        for w, m, s in zip(target.weights.tolist(), target.means.tolist(), target.stds.tolist(), strict=True)
    )
    share, edges = np.histogram(ends.numpy(), np.linspace(-3, 3, 61), density=True)
    ax.barh(edges[:-1], share, np.diff(edges), align="edge", color=BLUE, alpha=0.5, label="samples")
    ax.plot(density, x, color=BLACK, linewidth=1.5, label="target")
    tidy(ax)
    ax.set_xlabel("density [–]")
    ax.legend(frameon=False, fontsize="small", loc="upper right")
