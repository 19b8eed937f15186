"""Noise levels: the schedules of samplers, and the distributions for training.

A *schedule* is a float64 tensor of `num_steps + 1` levels, strictly decreasing from `sigma_max`; level
`num_steps - 1` is `sigma_min` and the last is 0. Each schedule is linear in some function of σ, which
determines where the steps are concentrated:

    linear       σ                    evenly; few steps left for small σ
    karras       σ^(1/ρ)              ρ = 7: mostly at small σ (Karras et al. 2022, Eq. 5)
    exponential  ln σ                 as many steps for 0.02…0.2 as for 2…20 (the limit ρ → ∞)
    cosine       arctan σ             around σ = 1, the scale of normalised data

A *level distribution* draws the σ of each training sample. Each is its quantile function applied to
uniform numbers, so stratified numbers give stratified levels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


def karras(num_steps: int, sigma_max: float, sigma_min: float, rho: float = 7.0) -> Tensor:
    """Levels evenly spaced in σ^(1/ρ) (Karras et al. 2022, arXiv:2206.00364, Eq. 5).

    Args:
        num_steps: Solver steps N ≥ 1; N = 1 gives `[sigma_max, 0]`.
        sigma_max: First level.
        sigma_min: Last level above zero.
        rho: Curvature ρ > 0: 1 is linear, large values approach `exponential`.

    Returns:
        float64 levels (num_steps + 1).

    Raises:
        ValueError: If a value is not finite or out of range.
    """
    _check_range(num_steps, sigma_max, sigma_min)
    _check_positive("rho", rho)
    return _with_zero(_karras_quantile(_line(num_steps), sigma_max, sigma_min, rho))


def linear(num_steps: int, sigma_max: float, sigma_min: float) -> Tensor:
    """Levels evenly spaced in σ; arguments, result and errors as in `karras`."""
    _check_range(num_steps, sigma_max, sigma_min)
    return _with_zero(sigma_max + _line(num_steps) * (sigma_min - sigma_max))


def exponential(num_steps: int, sigma_max: float, sigma_min: float) -> Tensor:
    """Levels evenly spaced in ln σ; arguments, result and errors as in `karras`."""
    _check_range(num_steps, sigma_max, sigma_min)
    return _with_zero(sigma_max * (sigma_min / sigma_max) ** _line(num_steps))


def cosine(num_steps: int, sigma_max: float, sigma_min: float, s: float = 0.008) -> Tensor:
    """Levels evenly spaced in arctan σ: the cosine schedule of Nichol & Dhariwal (arXiv:2102.09672, Eq. 17).

    ᾱ(t) = cos²(φ) with φ = π/2 · (t + s)/(1 + s) means σ(t) = √((1 − ᾱ)/ᾱ) = tan φ. Here t runs evenly
    between the times of `sigma_max` and `sigma_min`. As both ends are pinned, the offset `s` shifts and
    stretches t without changing the levels; it is accepted because such configs contain it.

    Args:
        num_steps: Solver steps N ≥ 1.
        sigma_max: First level.
        sigma_min: Last level above zero.
        s: Offset of the time axis, ≥ 0.

    Returns:
        float64 levels (num_steps + 1).

    Raises:
        ValueError: If a value is not finite or out of range.
    """
    _check_range(num_steps, sigma_max, sigma_min)
    if not (math.isfinite(s) and s >= 0):
        raise ValueError(f"s = {s} must be finite and ≥ 0 (usual: 0.008)")
    t_max, t_min = ((1 + s) * math.atan(sigma) * 2 / math.pi - s for sigma in (sigma_max, sigma_min))
    t = t_max + _line(num_steps) * (t_min - t_max)
    levels = torch.tan((t + s) / (1 + s) * math.pi / 2)
    levels[-1], levels[0] = sigma_min, sigma_max  # the ends exactly; tan∘arctan rounds
    return _with_zero(levels)


def piecewise(
    num_steps: int,
    sigma_max: float,
    sigma_min: float,
    sigma_split: float = 1.0,
    num_steps_above: int | None = None,
    rho_above: float = 7.0,
    rho_below: float = 7.0,
) -> Tensor:
    """Two `karras` spacings that meet at a given level, each with its number of steps and curvature.

    Args:
        num_steps: Solver steps N ≥ 3 in all.
        sigma_max: First level.
        sigma_min: Last level above zero.
        sigma_split: The level that both parts share, `sigma_min < sigma_split < sigma_max`.
        num_steps_above: Steps from `sigma_max` to `sigma_split`, 1 … N − 2; half of them by default.
        rho_above: ρ of the spacing above the split (1 is linear, large values approach exponential).
        rho_below: ρ of the spacing below the split.

    Returns:
        float64 levels (num_steps + 1); level `num_steps_above` is `sigma_split`.

    Raises:
        ValueError: If a value is not finite or out of range.
    """
    _check_range(num_steps, sigma_max, sigma_min)
    if num_steps < 3:
        raise ValueError(f"num_steps = {num_steps}: a piecewise schedule needs at least 3 steps")
    if not sigma_min < sigma_split < sigma_max:
        raise ValueError(f"sigma_split = {sigma_split} must lie between {sigma_min = } and {sigma_max = }")
    above = num_steps // 2 if num_steps_above is None else num_steps_above
    if not 1 <= above <= num_steps - 2:
        raise ValueError(f"num_steps_above = {above} must be 1 … {num_steps - 2} (num_steps - 2)")
    upper = karras(above + 1, sigma_max, sigma_split, rho_above)
    lower = karras(num_steps - above, sigma_split, sigma_min, rho_below)
    return torch.cat([upper[:above], lower])


def manual(sigmas: Sequence[float] | Tensor) -> Tensor:
    """Given levels, checked; a final 0 is appended if missing.

    Args:
        sigmas: Strictly decreasing positive levels, with or without the final 0.

    Returns:
        float64 levels ending in 0.

    Raises:
        ValueError: If the levels are not a finite, strictly decreasing list.
    """
    levels = check_schedule(sigmas)
    return torch.tensor(levels if levels[-1] == 0 else [*levels, 0.0], dtype=torch.float64)


def check_schedule(sigmas: Sequence[float] | Tensor) -> list[float]:
    """The levels of a valid schedule as Python floats.

    Args:
        sigmas: One-dimensional, finite, strictly decreasing, first > 0, last ≥ 0.

    Returns:
        The levels; a schedule that stops above zero is allowed (a sampler then ends at that level).

    Raises:
        ValueError: Otherwise, with the first invalid levels.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu").detach()
    if levels.ndim != 1 or len(levels) == 0:
        raise ValueError(
            f"sigmas has shape {tuple(levels.shape)}; a schedule is one-dimensional with at least one level, "
            "the same for all members"
        )
    values: list[float] = levels.tolist()
    if not all(map(math.isfinite, values)) or values[0] <= 0 or values[-1] < 0:
        raise ValueError(f"sigmas must be finite and positive (the last may be 0), got {values}")
    for index, (sigma, sigma_next) in enumerate(pairwise(values)):
        if sigma_next >= sigma:
            raise ValueError(
                f"sigmas must strictly decrease, but sigmas[{index}] = {sigma} is followed by {sigma_next}"
            )
    return values


SCHEDULES: dict[str, Callable[..., Tensor]] = {
    "karras": karras,
    "linear": linear,
    "exponential": exponential,
    "cosine": cosine,
    "piecewise": piecewise,
    "manual": manual,
}
"""Schedules by the name configs use (`schedule_type`)."""


@dataclass(frozen=True)
class KarrasUniform:
    """Training levels uniform in σ^(1/ρ) between `sigma_max` and `sigma_min`, as the `karras` schedule.

    Raises ValueError as `karras` does.
    """

    sigma_max: float
    sigma_min: float
    rho: float = 7.0
    stratified: bool = False

    def __post_init__(self) -> None:
        _check_range(1, self.sigma_max, self.sigma_min)
        _check_positive("rho", self.rho)

    def sample(self, batch: int, ensemble: int, generator: torch.Generator) -> Tensor:
        """One level per sample and member: float32 (batch, 1, ensemble, 1, 1) on the generator's device."""
        u = _uniform(batch, ensemble, generator, self.stratified)
        return _as_levels(_karras_quantile(u, self.sigma_max, self.sigma_min, self.rho), batch, ensemble)


@dataclass(frozen=True)
class LogNormal:
    """Training levels with ln σ ~ N(`P_mean`, `P_std`²) (Karras et al. 2022, Table 1).

    Raises ValueError if `P_mean` is not finite or `P_std` not positive.
    """

    P_mean: float = -1.2
    P_std: float = 1.2
    stratified: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.P_mean):
            raise ValueError(f"P_mean = {self.P_mean} must be finite")
        _check_positive("P_std", self.P_std)

    def sample(self, batch: int, ensemble: int, generator: torch.Generator) -> Tensor:
        """One level per sample and member: float32 (batch, 1, ensemble, 1, 1) on the generator's device."""
        u = _uniform(batch, ensemble, generator, self.stratified)
        z = torch.special.ndtri(u.clamp_min(torch.finfo(u.dtype).tiny))  # u = 0 would be ln σ = −∞
        return _as_levels(torch.exp(self.P_mean + self.P_std * z), batch, ensemble)


@dataclass(frozen=True)
class LogUniform:
    """Training levels uniform in ln σ between `sigma_max` and `sigma_min`, as the `exponential` schedule.

    Raises ValueError as `karras` does.
    """

    sigma_max: float
    sigma_min: float
    stratified: bool = False

    def __post_init__(self) -> None:
        _check_range(1, self.sigma_max, self.sigma_min)

    def sample(self, batch: int, ensemble: int, generator: torch.Generator) -> Tensor:
        """One level per sample and member: float32 (batch, 1, ensemble, 1, 1) on the generator's device."""
        u = _uniform(batch, ensemble, generator, self.stratified)
        return _as_levels(self.sigma_max * (self.sigma_min / self.sigma_max) ** u, batch, ensemble)


def _karras_quantile(u: Tensor, sigma_max: float, sigma_min: float, rho: float) -> Tensor:
    """σ at u ∈ [0, 1]: (σmax^(1/ρ) + u (σmin^(1/ρ) − σmax^(1/ρ)))^ρ."""
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (top + u * (bottom - top)) ** rho


def _line(num_steps: int) -> Tensor:
    """u_i = i / (N − 1), i = 0 … N − 1."""
    return torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1)


def _with_zero(levels: Tensor) -> Tensor:
    """Append the final 0; equal neighbours (σmin = σmax, or too many steps for float64) are an error."""
    return torch.tensor(check_schedule([*levels.tolist(), 0.0]), dtype=torch.float64)


def _uniform(batch: int, ensemble: int, generator: torch.Generator, stratified: bool) -> Tensor:
    """Uniform numbers (batch · ensemble), float64; stratified: one in each of as many equal intervals.

    Low-variance sampling of the levels as in Kingma et al. 2021 (arXiv:2107.00630, App. I.1), with an
    independent jitter and a random assignment, so that every single level is still uniformly distributed.
    """
    count, device = batch * ensemble, generator.device
    u = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    if not stratified:
        return u
    return (torch.randperm(count, generator=generator, device=device) + u) / count


def _as_levels(sigma: Tensor, batch: int, ensemble: int) -> Tensor:
    return sigma.to(torch.float32).reshape(batch, 1, ensemble, 1, 1)


def _check_range(num_steps: int, sigma_max: float, sigma_min: float) -> None:
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps = {num_steps!r} must be an integer ≥ 1")
    _check_positive("sigma_max", sigma_max)
    _check_positive("sigma_min", sigma_min)
    if sigma_max < sigma_min:
        raise ValueError(f"sigma_max = {sigma_max} must not be below sigma_min = {sigma_min}")


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} = {value} must be finite and > 0")
