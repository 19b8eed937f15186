"""The pictures of the README, made from what is shipped: python docs/gallery.py [NAME …].

About three minutes on one CPU core; each picture is docs/NAME.png.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from diffusion_lab import plots, verification
from diffusion_lab.assets import store_path
from diffusion_lab.graphs import multi_scale
from diffusion_lab.inference import Forecaster, load_forecaster
from diffusion_lab.plots.style import DIFFERENCE
from diffusion_lab.sampling import PRESETS
from diffusion_lab.stores import Store, open_store
from diffusion_lab.widgets import SamplerTuner

FOLDER = Path(__file__).parent
START, DAY = np.datetime64("2025-01-15", "s"), np.timedelta64(1, "D")
FINE = PRESETS["guide"].with_num_steps(20)
OF_LINES = ("graph", "scores")  # maps in several colour scales would suffer


def _forecaster() -> tuple[Forecaster, Store]:
    torch.set_num_threads(1)  # faster than more on a small network, and sums are the same anywhere
    return load_forecaster("example-tendency", "cpu"), open_store(store_path("example"))


def forecast() -> Figure:
    """An ensemble three days ahead, beside what came."""
    forecaster, store = _forecaster()
    ensemble = forecaster.forecast(START, 3, 8)
    land = store.read(0, ["lsm"])[0, 0, 0]
    truth = verification.truth_of(ensemble, store)
    return plots.forecast_panel(ensemble, truth, "z500", lead_time=3 * DAY, land=land)


def denoising() -> Figure:
    """One member on its way from noise to the change of the weather in a day."""
    forecaster, store = _forecaster()
    levels = FINE.sigmas().tolist()
    index, scale = forecaster.variables.output.index("t850"), store.tendency_statistics("1d").stdev
    scale = scale[store.variables.index("t850")]
    before, after = (store.read(store.index(START + lead), ["t850"])[0, 0, 0] for lead in (0 * DAY, DAY))
    shown = (0, 8, 12, 14, 16, 19)
    figure = Figure(figsize=(13, 2.5), layout="constrained")
    axes = figure.subplots(2, len(shown) + 1)
    place = (store.latitudes, store.longitudes, store.field_shape)
    look = {"cmap": DIFFERENCE, "limits": (-8, 8), "land": store.read(0, ["lsm"])[0, 0, 0]}
    for solver_step in forecaster.rollout(START, 1, 1, settings=FINE).solver_steps():
        if (number := solver_step.step.index) in shown:
            column, sigma = axes[:, shown.index(number)], levels[number + 1]
            noisy = solver_step.step.state[0, 0, 0, :, index].numpy() * scale / np.hypot(1, sigma)
            plots.field_map(column[0], noisy, *place, **look)
            artist = plots.field_map(column[1], solver_step.denoised()[0, :, index] - before, *place, **look)
            column[0].set_title(f"σ = {sigma:.2g}", fontsize="medium")
    plots.field_map(axes[1, -1], after - before, *place, **look)
    axes[1, -1].set_title("what came", fontsize="medium")
    axes[0, -1].set_axis_off()
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("noisy, scaled")
    axes[1, 0].set_ylabel("denoised")
    figure.colorbar(artist, ax=axes, label="change of t850 in a day [K]", shrink=0.9, aspect=14)
    return figure


def tuner() -> Figure:
    """What the sampler tuner shows: the present setting beside one that was pinned."""
    tuner = SamplerTuner("example-tendency", "cpu", date=str(START), members=6, variable="t850")
    tuner.set(**{**FINE.noise_scheduler, "num_steps": 6}, sampler="heun", S_churn=0.0).run()
    tuner.pin()
    tuner.set(sampler="deis", num_steps=11)  # as many network calls
    tuner.run()
    return tuner.figure()


def scores() -> Figure:
    """Forecasts to five days, scored: beside simple ones, spread beside error, ranks and spectra."""
    forecaster, store = _forecaster()
    starts = np.datetime64("2025-01-10", "s") + np.arange(6) * 60 * DAY
    ensembles = verification.forecast_ensembles(forecaster, starts, 5, 6)
    result = verification.score(ensembles, store)
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1.5, 1.15, 0.85, 0.95))
    plots.score_vs_lead(axes[0], result, "t850")
    plots.spread_skill(axes[1], result)
    first = result.sel(variable="t850", lead_time=DAY)
    plots.rank_histogram(axes[2], first["rank_histogram"], first["rank_histogram_interval"])
    plots.spectra(axes[3], result, "t850", 5 * DAY)
    for ax, title in zip(
        axes, ("fair CRPS", "spread / skill", "ranks, day 1", "spectra, day 5"), strict=True
    ):
        ax.set_title(title, loc="left", fontsize="medium")
    return figure


def graph() -> Figure:
    """Grid, mesh and the edges between them."""
    store = open_store(store_path("example"))
    mesh = multi_scale(store.latitudes, store.longitudes, refinement=3)
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    kinds = {"encoder": ("data", "hidden"), "processor": ("hidden", "hidden"), "decoder": ("hidden", "data")}
    for ax, (name, (source, target)) in zip(figure.subplots(1, 3), kinds.items(), strict=True):
        plots.graph_on_globe(ax, mesh, (source, "to", target))
        count = mesh[source, "to", target].num_edges
        ax.set_title(f"{name}: {count:,} edges", fontsize="medium")
        if name != "encoder":
            ax.get_legend().remove()
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    function.__name__: function for function in (forecast, denoising, tuner, scores, graph)
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG; of lines, in 256 colours of its own, where nobody sees it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, facecolor="white")
    picture = Image.open(buffer).convert("RGB")
    if path.stem in OF_LINES:
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}; all if none")
    names = parser.parse_args().names or list(PICTURES)
    if unknown := sorted(set(names) - set(PICTURES)):
        parser.error(f"there is no picture {', '.join(unknown)}; there are {', '.join(PICTURES)}")
    for name in names:
        save(PICTURES[name](), FOLDER / f"{name}.png")
        print(f"docs/{name}.png: {(FOLDER / f'{name}.png').stat().st_size / 1e3:.0f} kB", flush=True)
