"""Guidance by observations: wrapper denoisers that turn a prior into a posterior, without training.

Given observations o = H(x) + e with e ~ N(0, R), Bayes' rule adds ∇ log p(o | y) to the score of the noisy
state y, and so σ² ∇ log p(o | y) to its denoiser. What is unknown is p(o | y): it averages over all clean
states x that y may hide. The methods differ in what they take for that average; each approximates
p(x | y) by a Gaussian about D(y; σ):

- `DPS`: of variance γ σ² σd²/(σ² + σd²) everywhere, independent (none at all for γ = 0).
- `MMPS`: of the exact covariance of p(x | y), which the denoiser's Jacobian knows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lab.denoisers import Denoiser


@dataclass(frozen=True)
class Observations:
    """Values observed at one time, with independent Gaussian errors.

    Attributes:
        values: (observation,).
        operator: H, from clean states (batch, time, ensemble, grid, variable) to what would be observed,
            (batch, ensemble, observation). Differentiable; each sample is observed on its own.
        error: (observation,) standard deviation of the errors, positive, in the units of `values`.

    Raises:
        ValueError: the shapes differ, or an error is not positive and finite.
    """

    values: Tensor
    operator: Callable[[Tensor], Tensor]
    error: Tensor

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or self.values.shape != self.error.shape:
            raise ValueError(
                "values and error must both have the shape (observation,), got "
                f"{tuple(self.values.shape)} and {tuple(self.error.shape)}"
            )
        if not (self.error.isfinite().all() and (self.error > 0).all()):
            raise ValueError(f"the errors of observations must be positive, got {self.error.tolist()}")

    def misfit(self, state: Tensor) -> Tensor:
        """(H(x) − o)/error for clean states x, (batch, ensemble, observation)."""
        seen = self.operator(state)
        return (seen - self.values.to(seen)) / self.error.to(seen)


class DPS:
    """Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687).

    p(o | y) ≈ N(o; H(D), R + γ v I) with v = σ²σd²/(σ² + σd²), the variance that p(x | y) would have for
    independent clean values of variance σd². γ = 0 is the original method; γ = 1 is that of Rozet and Louppe
    2023 (arXiv:2306.10574, Eq. 17).

    It costs one vector-Jacobian product a call. It fails where the clean values that are observed are
    correlated given y, since it takes them for independent, and where v is not their variance: the posterior
    is then too narrow or too wide, and its mean is off. With γ near 0 and a small error its gradients grow
    beyond what solver steps can follow.

    Args:
        denoiser: D, the prior.
        observations: what was seen.
        gamma: γ ≥ 0.
        sigma_data: σd, standard deviation of the clean values.
    """

    def __init__(
        self, denoiser: Denoiser, observations: Observations, gamma: float = 1.0, sigma_data: float = 1.0
    ) -> None:
        if gamma < 0:
            raise ValueError(f"gamma = {gamma} must be at least 0")
        self.denoiser, self.observations = denoiser, observations
        self.gamma, self.sigma_data = gamma, sigma_data

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """E[clean | y, o] ≈ D + σ² Jᵀ Hᵀ (R + γ v I)⁻¹ (o − H(D)), of y's shape."""
        with torch.inference_mode(False), torch.enable_grad():
            y = y.clone().requires_grad_()
            denoised = self.denoiser(y, sigma)
            misfit = self.observations.misfit(denoised)
            variance = sigma**2 * self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
            inflation = 1 + self.gamma * variance / self.observations.error.to(misfit) ** 2
            (gradient,) = torch.autograd.grad(misfit, y, -(misfit / inflation).detach())
        return denoised.detach() + sigma**2 * gradient


class MMPS:
    """Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712, Sec. 4.2).

    p(o | y) ≈ N(o; H(D), R + H V Hᵀ), where V = σ² ∂D/∂y is the covariance of p(x | y) (Tweedie's formula of
    second order), exact if p(x | y) is Gaussian and H linear. The system of the size of the
    observations is solved by conjugate gradients, to which V need only be applied: one vector-Jacobian
    product an iteration, since V is symmetric.

    It fails where a trained denoiser's Jacobian is far from symmetric and positive (iterations are then
    stopped at the first direction of negative curvature), where p(x | y) has several modes, and with too few
    iterations for closely spaced, precise observations: what is left out keeps the posterior too wide.

    Args:
        denoiser: D, the prior.
        observations: what was seen.
        iterations: most conjugate-gradient steps a call.
        tolerance: residual, relative to the right-hand side, at which they stop.
    """

    def __init__(
        self, denoiser: Denoiser, observations: Observations, iterations: int = 5, tolerance: float = 1e-3
    ) -> None:
        if iterations < 1:
            raise ValueError(f"iterations = {iterations} must be at least 1")
        self.denoiser, self.observations = denoiser, observations
        self.iterations, self.tolerance = iterations, tolerance

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """E[clean | y, o] ≈ D + σ² Jᵀ Hᵀ (R + H V Hᵀ)⁻¹ (o − H(D)), of y's shape.

        In units of the errors, so that R is the identity and variables of all units weigh alike.
        """
        with torch.inference_mode(False), torch.enable_grad():
            y = y.clone().requires_grad_()
            denoised = self.denoiser(y, sigma)
            misfit = self.observations.misfit(denoised)
        clean = denoised.detach()

        def spread(weights: Tensor) -> Tensor:
            """V Hᵀ w, of y's shape."""
            (gradient,) = torch.autograd.grad(misfit, y, weights, retain_graph=True)
            return sigma**2 * gradient

        def system(weights: Tensor) -> Tensor:
            """(I + H V Hᵀ) w, of the shape of w."""
            with torch.inference_mode(False):
                direction = spread(weights).to(clean)
                image = torch.func.jvp(self.observations.misfit, (clean,), (direction,))[1]
            return weights + image

        weights = conjugate_gradients(system, -misfit.detach(), self.iterations, self.tolerance)
        return clean + spread(weights)


def conjugate_gradients(
    system: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float = 1e-3
) -> Tensor:
    """Solve A x = b for symmetric positive A, for all leading axes of b at once (Hestenes & Stiefel 1952).

    Args:
        system: x ↦ A x, of the shape of b.
        b: (…, observation).
        iterations: most steps.
        tolerance: a system is left alone once its residual is below this part of its b, or once a direction
            of negative curvature shows that its A is not positive.

    Returns:
        x, of the shape of b.
    """
    x, residual = torch.zeros_like(b), b
    direction, squared = b, b.square().sum(-1, keepdim=True)
    enough, active = tolerance**2 * squared, squared > 0
    for _ in range(iterations):
        if not active.any():
            break
        image = system(direction)
        curvature = (direction * image).sum(-1, keepdim=True)
        active = active & (curvature > 0)
        step = torch.where(active, squared / curvature, 0.0)
        x, residual = x + step * direction, residual - step * image
        before, squared = squared, residual.square().sum(-1, keepdim=True)
        active = active & (squared > enough)
        direction = residual + torch.where(active, squared / before, 0.0) * direction
    return x


@dataclass(frozen=True)
class LinearOperator:
    """Weighted sums of cells of one variable each: single cells, interpolation to places, area means.

    Attributes:
        cells: (observation, k) cell numbers.
        weights: (observation, k); where an observation needs fewer than k cells, the rest have weight 0.
        variables: (observation,) number of the variable observed.
    """

    cells: Tensor
    weights: Tensor
    variables: Tensor

    def __call__(self, state: Tensor) -> Tensor:
        """Observe states (batch, 1, ensemble, grid, variable); returns (batch, ensemble, observation)."""
        device = state.device
        cells, variables = self.cells.to(device), self.variables.to(device)
        return (state[:, 0, :, cells, variables[:, None]] * self.weights.to(state)).sum(-1)
