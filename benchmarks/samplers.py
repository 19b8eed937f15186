"""How good is each sampler for the network calls it may spend? Ours beside the peers that are installed.

Every solver walks the same Karras schedule (σ from 80 to 0.002, ρ = 7) with the exact denoiser of a
Gaussian mixture, so all error is the solver's own:

  W2      Wasserstein distance to the target in 1-D: 512 exact quantiles of p(σ_max) against the data's
  spread  standard deviation of the result over the target's (1 is right, below 1 is an ensemble too narrow)
  64-D    median error of a trajectory in 64 dimensions against one of 1,000 steps, per dimension
  ms      time of one step apart from the denoiser, 8 members × 2,048 nodes × 8 variables, one thread

Peers (k-diffusion, diffusers, azula) are measured where they can be imported; best in an environment of
their own:

  python -m venv peers && peers/bin/pip install -e . k-diffusion diffusers azula
  peers/bin/python benchmarks/samplers.py
"""

import argparse
import importlib.metadata
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lab.analytic import GaussianMixture
from diffusion_lab.samplers import SAMPLERS, sample, unipc
from diffusion_lab.schedules import karras

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
SHAPE = (1, 1, 8, 2048, 8)
COLORS = {  # Okabe and Ito's, which colour-blind eyes can tell apart, and two more
    "euler": "#999999",
    "heun": "#E69F00",
    "dpmpp_2s": "#56B4E9",
    "dpmpp_2m": "#0072B2",
    "dpmpp_3m": "#000000",
    "deis-2": "#F0C000",
    "deis-3": "#D55E00",
    "unipc-2": "#CC79A7",
    "unipc-3": "#009E73",
    "lms-4": "#7F4F24",
}
STYLES = {"diffusion_lab": "-", "k-diffusion": "--", "diffusers": ":", "azula": "-."}


@dataclass(frozen=True)
class Solver:
    """A sampler of some library: `run(denoiser, y, sigmas)` → sample, with `calls` network calls per step."""

    library: str
    name: str
    calls: int
    run: Callable[[Callable, Tensor, Tensor], Tensor]


def our_solvers() -> list[Solver]:
    """The deterministic ones; noise would add its own error to what is measured."""
    orders = {"deis": (2, 3), "unipc": (2, 3)}
    solvers = []
    for name in ("euler", "heun", "dpmpp_2s", "dpmpp_2m", "dpmpp_3m", "deis", "unipc"):
        for order in orders.get(name, (None,)):
            options = {} if order is None else {"order": order}
            label = name if order is None else f"{name}-{order}"
            calls = 2 if name in ("heun", "dpmpp_2s") else 1
            solvers.append(Solver("diffusion_lab", label, calls, partial(sample, SAMPLERS[name], **options)))
    return solvers


def k_diffusion_solvers() -> list[Solver]:
    """Functions over model(x, sigma of each sample); the SDE samplers without their noise."""
    import k_diffusion.sampling as k

    def run(function: Callable, options: dict, denoiser: Callable, y: Tensor, sigmas: Tensor) -> Tensor:
        return function(lambda x, sigma: denoiser(x, sigma[0]), y, sigmas, disable=True, **options)

    silent = {"eta": 0.0, "noise_sampler": lambda sigma, sigma_next: 0.0}
    functions = {
        "euler": (1, k.sample_euler, {}),
        "heun": (2, k.sample_heun, {}),
        "dpmpp_2s": (2, k.sample_dpmpp_2s_ancestral, {"eta": 0.0}),
        "dpmpp_2m": (1, k.sample_dpmpp_2m, {}),
        "dpmpp_3m": (1, k.sample_dpmpp_3m_sde, silent),
        "lms-4": (1, k.sample_lms, {}),
    }
    return [
        Solver("k-diffusion", name, calls, partial(run, function, options))
        for name, (calls, function, options) in functions.items()
    ]


def diffusers_solvers() -> list[Solver]:
    """Schedulers, given our levels; in their variance-preserving form the state is y/√(1 + σ²)."""
    import diffusers

    def run(make: Callable, denoiser: Callable, y: Tensor, sigmas: Tensor) -> Tensor:
        scheduler = make(prediction_type="epsilon", use_karras_sigmas=True)
        scheduler.set_timesteps(len(sigmas) - 1)
        scheduler.sigmas = sigmas.clone()
        scheduler.timesteps = torch.arange(len(sigmas) - 1)
        scales = (1 + sigmas**2).rsqrt()
        x = y * scales[0]
        for i, sigma in enumerate(sigmas[:-2]):
            y = x / scales[i]
            x = scheduler.step((y - denoiser(y, sigma)) / sigma, scheduler.timesteps[i], x).prev_sample
        return denoiser(
            x / scales[-2], sigmas[-2]
        )  # what all do with a last step to 0, but DEIS, which fails

    dpm, deis, predictor = (
        getattr(diffusers, f"{name}MultistepScheduler") for name in ("DPMSolver", "DEIS", "UniPC")
    )
    makers = {
        "dpmpp_2m": partial(dpm, solver_order=2, final_sigmas_type="zero"),
        "dpmpp_3m": partial(dpm, solver_order=3, final_sigmas_type="zero"),
        "deis-2": partial(deis, solver_order=2),
        "deis-3": partial(deis, solver_order=3),
        "unipc-2": partial(predictor, solver_order=2, final_sigmas_type="zero"),
        "unipc-3": partial(predictor, solver_order=3, final_sigmas_type="zero"),
    }
    return [Solver("diffusers", name, 1, partial(run, make)) for name, make in makers.items()]


def azula_solvers() -> list[Solver]:
    """Samplers over a denoiser module and a schedule of time; the last call, to σ = 0, is ours."""
    from azula import sample as azula
    from azula.denoise import Denoiser, DiracPosterior

    class Exact(Denoiser):
        def __init__(self, denoiser: Callable, sigmas: Tensor) -> None:
            super().__init__()
            self.denoiser, self.sigmas = denoiser, sigmas
            self.schedule = lambda t: (torch.ones_like(t), sigmas[(len(sigmas) - 1 - t).long()])

        def forward(self, x: Tensor, t: Tensor) -> DiracPosterior:
            return DiracPosterior(mean=self.denoiser(x, self.schedule(t)[1]))

    def run(make: Callable, denoiser: Callable, y: Tensor, sigmas: Tensor) -> Tensor:
        levels = sigmas[:-1]  # time t counts the levels that are left above σ_min
        steps = len(levels) - 1
        if steps > 0:
            y = make(Exact(denoiser, levels), start=steps, stop=0, steps=steps, silent=True, dtype=y.dtype)(y)
        return denoiser(y, levels[-1])

    makers = {
        "euler": (1, azula.EulerSampler),
        "heun": (2, azula.HeunSampler),
        "deis-2": (1, partial(azula.zEABSampler, order=2)),
        "deis-3": (1, partial(azula.zEABSampler, order=3)),
        "dpmpp_3m": (1, partial(azula.xEABSampler, order=3)),  # there "exponential Adams-Bashforth"
    }
    return [Solver("azula", name, calls, partial(run, make)) for name, (calls, make) in makers.items()]


def all_solvers() -> list[Solver]:
    """Ours, then those of every peer that is installed."""
    solvers = our_solvers()
    for peer in (k_diffusion_solvers, diffusers_solvers, azula_solvers):
        try:
            solvers += peer()
        except ImportError as error:
            print(f"without {peer.__name__.removesuffix('_solvers')}: {error}")
    return solvers


class OneDimension:
    """The 1-D mixture, its start and its target."""

    def __init__(self) -> None:
        self.denoiser = GaussianMixture([0.3, 0.5, 0.2], [-1.0, 0.2, 1.5], [0.3, 0.2, 0.25])
        p = (torch.arange(512, dtype=torch.float64) + 0.5) / 512
        self.start = self.denoiser.quantile(p, SIGMA_MAX)[:, None]
        self.target = self.denoiser.quantile(p, 0.0)

    def errors(self, final: Tensor) -> tuple[float, float]:
        """W2 and spread ratio."""
        w2 = (final.flatten().sort().values - self.target).square().mean().sqrt()
        return w2.item(), (final.std() / self.target.std()).item()


class ManyDimensions:
    """Five components in 64 dimensions, and where 256 trajectories truly end."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        means = 0.5 * torch.randn(5, 64, generator=generator, dtype=torch.float64)
        self.denoiser = GaussianMixture([0.2] * 5, means.tolist(), [0.2, 0.3, 0.4, 0.5, 0.6])
        clean = self.denoiser.sample((256,), generator)
        self.start = clean + SIGMA_MAX * torch.randn(256, 64, generator=generator, dtype=torch.float64)
        self.target = sample(unipc, self.denoiser, self.start, karras(1000, SIGMA_MAX, SIGMA_MIN))

    def error(self, final: Tensor) -> float:
        """Median over trajectories of the root-mean-square error per dimension."""
        return (final - self.target).square().mean(1).sqrt().median().item()


def overhead(solver: Solver, num_steps: int = 20, repeats: int = 5) -> float:
    """Milliseconds per step with a denoiser that costs nothing: the best of some runs."""
    y, answer = torch.ones(SHAPE, dtype=torch.float64), torch.zeros(SHAPE, dtype=torch.float64)
    sigmas = karras(num_steps, SIGMA_MAX, SIGMA_MIN)
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        solver.run(lambda y, sigma: answer, y, sigmas)
        best = min(best, time.process_time() - begin)
    return 1e3 * best / num_steps


def measure(solvers: list[Solver], all_calls: list[int]) -> dict[Solver, dict[str, list[float]]]:
    """Each solver's W2, spread and 64-D error by number of calls, and its overhead."""
    one, many = OneDimension(), ManyDimensions()
    results = {}
    for solver in solvers:
        w2, spread, error = [], [], []
        for calls in all_calls:
            sigmas = karras((calls + solver.calls - 1) // solver.calls, SIGMA_MAX, SIGMA_MIN)
            distance, ratio = one.errors(solver.run(one.denoiser, one.start, sigmas))
            w2.append(distance)
            spread.append(ratio)
            error.append(many.error(solver.run(many.denoiser, many.start, sigmas)))
        results[solver] = {"W2": w2, "spread": spread, "64-D": error, "ms": [overhead(solver)]}
        print(f"  {solver.library} {solver.name}", flush=True)
    return results


def table(results: dict[Solver, dict[str, list[float]]], all_calls: list[int]) -> str:
    """A Markdown table."""
    head = [f"{name} {calls}" for name in ("W2", "spread", "64-D") for calls in all_calls]
    rows = [["library", "solver", *head, "ms"], ["---"] * 2 + ["---:"] * (len(head) + 1)]
    for solver, values in results.items():
        small = [f"{v:.2g}" if v >= 1e-3 else f"{v:.1e}" for v in values["W2"]]
        errors = [f"{v:.2g}" if v >= 1e-3 else f"{v:.1e}" for v in values["64-D"]]
        ratios = [f"{v:.3f}" for v in values["spread"]]
        rows.append([solver.library, solver.name, *small, *ratios, *errors, f"{values['ms'][0]:.2f}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows
    )


def picture(results: dict[Solver, dict[str, list[float]]], all_calls: list[int], path: Path) -> None:
    """Error against calls: a colour for each method, a line style for each library."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", sharex=True)
    titles = {"W2": "1-D: Wasserstein distance to the target", "64-D": "64-D: median error of a trajectory"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for solver, values in results.items():
            ours = solver.library == "diffusion_lab"
            style = {
                "color": COLORS[solver.name],
                "linewidth": 2 if ours else 1,
                "marker": "o" if ours else None,
            }
            axis.loglog(all_calls, values[key], linestyle=STYLES[solver.library], markersize=4, **style)
        axis.set(title=title, xlabel="network calls", ylabel="error, in units of the data")
        axis.set_xticks(all_calls)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    methods = [Line2D([], [], color=color, linewidth=2, label=name) for name, color in COLORS.items()]
    present = dict.fromkeys(solver.library for solver in results)
    libraries = [Line2D([], [], color="black", linestyle=STYLES[name], label=name) for name in present]
    figure.legend(handles=methods + libraries, loc="outside right center", handlelength=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def versions() -> str:
    """What was measured, and on what."""
    found = [f"Python {platform.python_version()}"]
    for name in ("diffusion-lab", "torch", "k-diffusion", "diffusers", "azula"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    """Measure, print the table, draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--calls",
        type=int,
        nargs="+",
        default=[5, 9, 17, 35, 79],
        help="network calls (default: 5 9 17 35 79)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("outputs/benchmarks/samplers.png"),
        help="where the picture goes (default: outputs/benchmarks/samplers.png)",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(all_solvers(), arguments.calls)
    print(f"\n{versions()}\n\n{table(results, arguments.calls)}\n")
    picture(results, arguments.calls, arguments.picture)
    print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()
