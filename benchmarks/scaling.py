"""How do time and memory grow with the grid and the channels? And what would larger grids take?

Training step (one sample, forward and backward) and network call (one member) of the default network on three
grids and, on the middle one, with half and twice the channels: each in a process of its own, so that the peak
of memory is its own. Both are straight lines in data + hidden + layers · hidden nodes, which are drawn
through the three grids and read off at O96 and N320.

  python benchmarks/scaling.py [--repeats 5] [--threads 1]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from networks import load_loops, machine, table

LAYERS, HEADS, VARIABLES, INPUTS = 8, 4, 8, 12
GRIDS = ((16, 2), (32, 3), (64, 4))  # latitudes, refinement of the mesh
LARGE = {"O96": (40_320, 10_242), "N320": (542_080, 40_962)}  # data nodes, hidden nodes (refinement 5 and 6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.repeats, arguments.threads)))
        return
    sizes = [(*grid, 64) for grid in GRIDS] + [(*GRIDS[1], channels) for channels in (32, 128)]
    results = [in_a_process(size, arguments) for size in sizes]
    rows = [["grid", "data", "hidden", "channels", "call s", "step s", "call MB", "step MB"]]
    for (latitudes, _, channels), r in zip(sizes, results, strict=True):
        grid = f"{latitudes} × {2 * latitudes}"
        rows.append([grid, f"{r['data']:,}", f"{r['hidden']:,}", str(channels), *shown(r)])
    block_nodes = [r["data"] + (1 + LAYERS) * r["hidden"] for r in results[:3]]
    for name, (data, hidden) in LARGE.items():
        reached = {}
        for key in ("call", "step", "call_mb", "step_mb"):
            # Relative errors count alike: the largest grid does not outweigh the others.
            values = np.array([r[key] for r in results[:3]])
            line = np.polyfit(block_nodes, values, 1, w=1 / values)
            reached[key] = float(np.polyval(line, data + (1 + LAYERS) * hidden))
        rows.append([f"{name} (extrapolated)", f"{data:,}", f"{hidden:,}", "64", *shown(reached)])
    print(f"{machine(arguments.threads)}; medians of {arguments.repeats}\n\n{table(rows)}")


def shown(result: dict[str, float]) -> list[str]:
    """Times and memory as cells."""
    times = [f"{result[key]:.3f}" for key in ("call", "step")]
    return [*times, *(f"{result[key]:,.0f}" for key in ("call_mb", "step_mb"))]


def in_a_process(size: tuple[int, int, int], arguments: argparse.Namespace) -> dict[str, float]:
    """`measure` in a new process."""
    options = ["--repeats", str(arguments.repeats), "--threads", str(arguments.threads)]
    command = [sys.executable, __file__, "--one", *map(str, size), *options]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def measure(latitudes: int, refinement: int, channels: int, repeats: int, threads: int) -> dict[str, float]:
    """Seconds of processor time, and MB above the built network."""
    from diffusion_lab.acceleration import accelerate
    from diffusion_lab.graphs import multi_scale
    from diffusion_lab.models import Architecture, DiffusionModelEncProcDec

    torch.set_num_threads(threads)
    rows = 90 - 180 / latitudes * (np.arange(latitudes) + 0.5)
    columns = 180 / latitudes * np.arange(2 * latitudes)
    graph = multi_scale(np.repeat(rows, 2 * latitudes), np.tile(columns, latitudes), refinement=refinement)
    architecture = Architecture(num_channels=channels, num_layers=LAYERS, num_heads=HEADS)
    model = DiffusionModelEncProcDec(graph, INPUTS, VARIABLES, VARIABLES, architecture)
    accelerate(model)
    cells = graph["data"].num_nodes
    x, y = torch.randn(1, 2, 1, cells, INPUTS), torch.randn(1, 1, 1, cells, VARIABLES)
    sigma = torch.ones(1, 1, 1, 1, 1)

    def call() -> None:
        with torch.inference_mode():
            model(x, y, sigma)

    def step() -> None:
        model(x, y, sigma).square().mean().backward()

    answer: dict[str, float] = {"data": cells, "hidden": graph["hidden"].num_nodes}
    load_loops()
    built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, action in (("call", call), ("step", step)):
        seconds = []
        for _ in range(repeats + 1):
            began = time.process_time()
            action()
            seconds.append(time.process_time() - began)
        answer[name] = statistics.median(seconds[1:])
        answer[f"{name}_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - built) / 1024
    return answer


if __name__ == "__main__":
    main()
