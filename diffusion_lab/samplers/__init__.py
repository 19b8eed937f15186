"""Samplers: solvers of the probability-flow ODE (and SDE), each a generator over (denoiser, y, sigmas)."""

from collections.abc import Callable, Iterator

from diffusion_lab.samplers.churn import effective_churn
from diffusion_lab.samplers.contract import Step, sample
from diffusion_lab.samplers.deis import deis
from diffusion_lab.samplers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_2s, dpmpp_3m
from diffusion_lab.samplers.euler import euler, euler_ancestral
from diffusion_lab.samplers.heun import heun
from diffusion_lab.samplers.unipc import unipc

SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp_2s": dpmpp_2s,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "deis": deis,
    "unipc": unipc,
}
"""Samplers by the name configs use (`sampler`)."""

__all__ = [
    "SAMPLERS",
    "Step",
    "deis",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m",
    "effective_churn",
    "euler",
    "euler_ancestral",
    "heun",
    "sample",
    "unipc",
]
