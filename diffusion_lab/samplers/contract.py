"""Samplers: generators over (denoiser, y, sigmas) that yield a `Step` after each solver step.

The arguments that all samplers share are described here and not again:

    denoiser    D(y, σ), see `denoisers.Denoiser`
    y           state at level `sigmas[0]`, any shape; never changed
    sigmas      schedule of N + 1 levels, see `schedules`
    noise       `noise(draw)` → unit-variance noise of y's shape; needed only where a sampler adds noise

They raise ValueError where y or the schedule is invalid, an option is out of range, or noise is needed and
not given, and FloatingPointError where the denoiser returns NaN or infinity.

A solver is written as the paper's algorithm, on a float64 state and Python-float levels; `@sampler` adds what
all of them need: checks, casting, the count of network calls and the test for NaN.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lab.denoisers import Denoiser
from diffusion_lab.schedules import check_schedule


@dataclass(frozen=True)
class Step:
    """The sampler after one solver step.

    Attributes:
        index: Number of the step, 0 … N − 1.
        sigma: The level of `state`, `sigmas[index + 1]`.
        state: The noisy state, float64, of y's shape; after a last step to σ = 0 the sample.
        denoised: The denoiser's result at the start of the step: the current estimate of the sample.
        nfe: Network calls so far.
    """

    index: int
    sigma: float
    state: Tensor
    denoised: Tensor
    nfe: int


class Evaluations:
    """The denoiser for solvers: D(y, σ) with a Python-float σ, counted and tested for NaN.

    The denoiser gets σ as a 0-d float64 tensor on the CPU, which combines with tensors of any device like a
    plain number and can be branched on, without host-device synchronisation. On the CPU every result is
    tested at once; on an accelerator that would stall the queue, so the number of the first bad call is kept
    on the device and read with the last state.
    """

    def __init__(self, denoiser: Denoiser, y: Tensor) -> None:
        self.denoiser = denoiser
        self.dtype = solver_dtype(y.device)
        self.calls: list[tuple[int, float]] = []
        self.step = 0
        self.first_bad = torch.full((), math.inf, device=y.device)

    @property
    def nfe(self) -> int:
        """Network calls so far."""
        return len(self.calls)

    @torch.no_grad()
    def __call__(self, y: Tensor, sigma: float) -> Tensor:
        """D(y, σ) in the solver's dtype; ValueError for a wrong shape, FloatingPointError for NaN."""
        denoised = self.denoiser(y, torch.tensor(sigma, dtype=torch.float64))
        if denoised.shape != y.shape:
            raise ValueError(
                f"the denoiser returned shape {tuple(denoised.shape)} for y of shape {tuple(y.shape)}"
            )
        # A sum is not finite if any term is not, and reads the field once without a mask of its size.
        finite = torch.isfinite(denoised.sum(dtype=self.dtype))
        self.first_bad = self.first_bad.minimum(torch.where(finite, math.inf, float(self.nfe)))
        self.calls.append((self.step, sigma))
        if y.device.type == "cpu":
            self.check()
        return denoised.to(self.dtype)

    def check(self) -> None:
        """Raise FloatingPointError if a call so far was not finite."""
        if (call := self.first_bad.item()) < math.inf:
            step, sigma = self.calls[int(call)]
            raise FloatingPointError(
                f"the denoiser returned NaN or infinity in step {step} at σ = {sigma:.6g} (network call "
                f"{int(call) + 1}); check that σ lies within the range it was trained on, and its inputs"
            )


def sampler(solver: Callable[..., Iterator[Step]]) -> Callable[..., Iterator[Step]]:
    """Make a sampler of a solver `solver(denoiser, y, sigmas, …options)`.

    A bare generator function would check nothing until its first `next()`. The sampler checks y and the
    schedule when it is called, and an option the solver does not have is Python's own TypeError. The solver
    gets the denoiser as `Evaluations`, y in float64, and the levels as a list of floats.
    """

    @functools.wraps(solver)
    def start(
        denoiser: Denoiser, y: Tensor, sigmas: Tensor | Sequence[float], **options: object
    ) -> Iterator[Step]:
        levels = check_schedule(sigmas)
        if len(levels) < 2:
            raise ValueError(f"sigmas = {levels} holds no step; a schedule needs at least two levels")
        if not y.is_floating_point():
            raise TypeError(f"y must be a floating-point tensor, got {y.dtype}")
        evaluations = Evaluations(denoiser, y)
        steps = solver(evaluations, y.detach().to(solver_dtype(y.device)), levels, **options)
        return _watch(steps, evaluations, last=len(levels) - 2)

    return start


def _watch(steps: Iterator[Step], evaluations: Evaluations, last: int) -> Iterator[Step]:
    for step in steps:
        if step.index == last:
            evaluations.check()
        evaluations.step = step.index + 1
        yield step


def sample(
    sampler: Callable[..., Iterator[Step]],
    denoiser: Denoiser,
    y: Tensor,
    sigmas: Tensor | Sequence[float],
    **options: object,
) -> Tensor:
    """Run a sampler to its end.

    Args:
        sampler: One of `SAMPLERS`.
        denoiser: D(y, σ).
        y: State at level `sigmas[0]` (σ_0 times unit noise), any shape; never changed.
        sigmas: A schedule.
        **options: The sampler's own; an unknown one is a TypeError.

    Returns:
        The last state, float64: the sample where the schedule ends in 0.
    """
    for step in sampler(denoiser, y, sigmas, **options):  # noqa: B007
        pass
    return step.state


def solver_dtype(device: torch.device) -> torch.dtype:
    """float64, but float32 on Apple's MPS, which has nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64
