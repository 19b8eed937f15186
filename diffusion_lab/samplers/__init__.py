"""Samplers: solvers of the probability-flow ODE (and SDE), each a generator over (denoiser, y, sigmas)."""

from collections.abc import Callable, Iterator

from diffusion_lab.samplers.churn import effective_churn
from diffusion_lab.samplers.contract import Step, sample
from diffusion_lab.samplers.heun import heun

SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {"heun": heun}
"""Samplers by the name configs use (`sampler`)."""

__all__ = ["SAMPLERS", "Step", "effective_churn", "heun", "sample"]
