"""How long do the live scores take? What the tuner computes each time a slider stops.

  python benchmarks/scores.py          median and worst of 50, one thread, seconds of the processor

Fair CRPS, RMSE, spread and spread-skill ratio of 2,048 nodes × 8 variables, and the power spectra of the
members of one variable.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from diffusion_lab.graphs.sphere import gaussian_latitudes
from diffusion_lab.verification.ensemble import area_means, ensemble_scores
from diffusion_lab.verification.spectra import PowerSpectrum

REPEATS = 50


def milliseconds(work: Callable[[], object]) -> str:
    """Median and worst time of the thread itself: other programs on the machine do not count."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.thread_time()
        work()
        times.append(1e3 * (time.thread_time() - began))
    return f"{statistics.median(times):6.1f} ms, at worst {max(times):6.1f} ms"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    weights = torch.rand(2048)
    spectrum = PowerSpectrum(np.repeat(gaussian_latitudes(32), 64), np.tile(360 / 64 * np.arange(64), 32))
    for members in (8, 16, 50):
        forecast, truth = torch.randn(1, members, 2048, 8), torch.randn(1, 2048, 8)

        def score(forecast: torch.Tensor = forecast, truth: torch.Tensor = truth) -> object:
            return ensemble_scores(area_means(forecast, truth, weights), forecast.shape[1])

        print(f"{members:3} members  scores {milliseconds(score)}", end="   ")
        fields = forecast[0, :, :, 0]
        print(f"spectra {milliseconds(lambda fields=fields: spectrum(fields))}")


if __name__ == "__main__":
    main()
