"""Samplers: solvers of the probability-flow ODE (and SDE), each a generator over (denoiser, y, sigmas).

    noise = MemberNoise(seed=0).at(start=date, lead=1, members=range(16), shape=(1, 2048, 8))
    sigmas = karras(20, 80.0, 0.02)
    for step in heun(denoiser, sigmas[0] * noise(0), sigmas, S_churn=2.5, noise=noise):
        ...                         # step.index, .sigma, .state, .denoised, .nfe; stop whenever you like
    clean = sample(deis, denoiser, sigmas[0] * noise(0), sigmas)                    # or run to the end

`denoiser(y, sigma)` returns the expected clean state; y is the state at level `sigmas[0]`. States are
float64, the network has its own dtype (`denoisers.EDMDenoiser`). Invalid y, sigmas or names of options are
errors at the call; a denoiser that returns NaN is an error that names step and level.

Which one? The error left on Gaussian mixtures with their exact denoiser (W2 in 1-D / median of trajectories
in 64-D, in units of the data; Karras schedule 80 … 0.002; `benchmarks/samplers.py`), by network calls:

    calls       10              20              40
    heun        0.95  / 0.79    0.14  / 0.099   0.032  / 0.020    two calls a step, so half as many steps
    dpmpp_2s    0.21  / 0.11    0.063 / 0.034   0.019  / 0.009    the same
    dpmpp_2m    0.16  / 0.093   0.036 / 0.023   0.008  / 0.005    one call a step
    dpmpp_3m    0.14  / 0.27    0.034 / 0.021   0.0025 / 0.0015
    deis        0.039 / 0.007   0.008 / 0.002   0.0016 / 0.0004   order 3
    unipc       0.16  / 0.31    0.018 / 0.015   0.0013 / 0.0006   order 3: the best from about 60 calls on

- 10 calls: `deis`. Steps are then too long for a polynomial to predict, and it relies least on the far end:
  noise prediction weighs it by e^(−h) where data prediction (DPM-Solver++, UniPC) gives it full weight.
- 20 calls: `deis` still.
- 40 calls: the solver's error no longer dominates. `heun` or `dpmpp_2s` with churn (GenCast's
  S_churn = 2.5) can correct what no solver can: fresh noise lets later steps correct the network's earlier
  errors (Karras et al. 2022, Sec. 4). Without churn, `deis` or `unipc`.

A solver's error shows in the spread, too. For unit Gaussian data 20 steps of Heun end 3.5 % too wide, and
8.9 % with all the churn there can be; 50 steps 0.5 and 2.4 %. So judge churn at enough steps.
"""

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
