"""UniPC: predictor-corrector at one call per step (Zhao et al. 2023, arXiv:2302.04867)."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from diffusion_lab.samplers.contract import Evaluations, Step, sampler
from diffusion_lab.samplers.exponential import data_step


@sampler
def unipc(denoiser: Evaluations, y: Tensor, sigmas: list[float], order: int = 3) -> Iterator[Step]:
    """UniPC-p in data prediction, p = 2 or 3: converges with order p + 1, N calls.

    The predictor takes D over the step as the polynomial through its last p values (as `dpmpp_3m` for p = 3).
    D at the predicted state, needed for the next step anyway, gives one value more, at the step's end; the
    corrector repeats the step with it (their Algorithm 1). D is not evaluated again at the corrected state.

    The weights integrate the polynomials exactly. The paper's linear system R a = φ/B(h) has the same
    solution a B(h) whatever B(h): its variants B₁ and B₂ differ only where a lone unknown is replaced by 1/2.

    Args:
        order: p, the number of values that the predictor's polynomial goes through.

    The `state` of a `Step` is the predicted one.

    Raises:
        ValueError: If order is not 2 or 3.
    """
    if order not in (2, 3):
        raise ValueError(f"order = {order!r} must be 2 or 3")
    known: list[tuple[float, Tensor]] = []
    corrected = y
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(y, sigma)
        known = [*known[-order:], (sigma, denoised)]
        if i > 0:
            corrected = data_step(corrected, sigmas[i - 1], sigma, known)
        y = data_step(corrected, sigma, sigma_next, known[-order:])
        yield Step(i, sigma_next, y, denoised, denoiser.nfe)
