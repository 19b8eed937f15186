"""Targets whose denoiser is known in closed form, as a reference for samplers, tutorials and benchmarks.

Here D(y; σ) = E[clean | y] is exact at every σ, so the only error is that of the sampler. All arithmetic is
in y's dtype (float64 from a sampler).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_lab.denoisers import Denoiser


class GaussianMixture:
    """Σ_k w_k N(m_k, s_k²) for each element of y on its own, or Σ_k w_k N(m_k, s_k² I) for vectors.

    With noise of level σ each component keeps its weight and has variance s_k² + σ². Responsibilities are
    computed in log space, so they stay right far from all components and at any σ.
    """

    def __init__(
        self,
        weights: Sequence[float],
        means: Sequence[float] | Sequence[Sequence[float]],
        stds: Sequence[float],
    ) -> None:
        """Give the components.

        Args:
            weights: w_k > 0, summing to 1.
            means: m_k: numbers, or vectors (component, dim) along y's last axis.
            stds: s_k > 0.

        Raises:
            ValueError: If lengths differ, weights do not sum to 1, or a weight or std is not positive.
        """
        self.weights, self.means, self.stds = (
            torch.as_tensor(values, dtype=torch.float64) for values in (weights, means, stds)
        )
        if not len(self.weights) == len(self.means) == len(self.stds):
            raise ValueError(
                f"{len(self.weights)} weights, {len(self.means)} means, {len(self.stds)} stds: unequal"
            )
        if self.weights.min() <= 0 or self.stds.min() <= 0 or abs(self.weights.sum() - 1) > 1e-9:
            raise ValueError(f"weights must be positive and sum to 1, stds positive: {weights}, {stds}")

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """D(y; σ) = Σ_k r_k (m_k + s_k²/(s_k² + σ²) (y − m_k)), r_k ∝ w_k N(y; m_k, s_k² + σ²).

        Args:
            y: Any shape, or (…, dim) for vectors.
            sigma: 0-d, or with y's number of dimensions.

        Returns:
            E[clean | y], of y's shape.
        """
        dims = self.means.shape[1:]
        expand = (..., *[None] * y.ndim)
        weights, stds = (v.to(y)[expand] for v in (self.weights, self.stds))
        means = self.means.to(y).reshape(-1, *[1] * (y.ndim - len(dims)), *dims)
        variances = stds**2 + sigma**2
        offsets = y - means
        distances = offsets**2 / variances + variances.log()
        if dims:  # one responsibility for a whole vector
            distances = distances.sum(-1, keepdim=True)
        r = torch.softmax(weights.log() - distances / 2, dim=0)
        return (r * (means + stds**2 / variances * offsets)).sum(0)

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Clean draws, float64: of `shape`, or (*shape, dim) for vectors."""
        count = math.prod(shape)
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator).reshape(*shape)
        means = self.means[k]
        stds = self.stds[k].reshape(*shape, *[1] * (means.ndim - k.ndim))
        return means + stds * torch.randn(means.shape, generator=generator, dtype=torch.float64)

    def quantile(self, p: Tensor, sigma: float) -> Tensor:
        """The x with P(y ≤ x) = p at level σ (numbers only): float64 of p's shape, for 0 < p < 1."""
        return self._solve(torch.logit(p.to(torch.float64)), sigma)

    def probability_flow(self, y: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Where the probability-flow ODE takes y from σ to σ_next, exactly (numbers only).

        In one dimension trajectories cannot cross, so each keeps its quantile: y_next = F⁻¹(F(y; σ); σ_next).

        Args:
            y: State at level σ, any shape.
            sigma: Level of y.
            sigma_next: Level wanted, ≥ 0.

        Returns:
            The state at σ_next, float64.
        """
        return self._solve(self._logit_cdf(y.to(torch.float64), sigma), sigma_next)

    def _logit_cdf(self, y: Tensor, sigma: float) -> Tensor:
        """Log odds ln F − ln(1 − F): exact to rounding in both tails, where F itself is not."""
        expand = (..., *[None] * y.ndim)
        z = (y - self.means[expand]) / (self.stds**2 + sigma**2).sqrt()[expand]
        log_weights = self.weights.log()[expand]
        below, above = (torch.logsumexp(log_weights + torch.special.log_ndtr(x), 0) for x in (z, -z))
        return below - above

    def _solve(self, logit: Tensor, sigma: float) -> Tensor:
        """Invert `_logit_cdf` by bisection, to the last bit or so."""
        if self.means.ndim > 1:
            raise ValueError("quantiles are for mixtures of numbers, not of vectors")
        reach = 40 * (self.stds.max() ** 2 + sigma**2).sqrt()
        low = torch.full_like(logit, (self.means.min() - reach).item())
        high = torch.full_like(logit, (self.means.max() + reach).item())
        for _ in range(100):
            middle = (low + high) / 2
            below = self._logit_cdf(middle, sigma) < logit
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class Gaussian:
    """N(mean, C) over the grid axis of y (…, grid, variable), the same covariance for each variable.

    In the eigenvectors of C everything is scalar: with c an eigenvalue, D keeps the part c/(c + σ²) of
    y − mean, and the probability flow scales it by √((c + σ_next²)/(c + σ²)).
    """

    def __init__(self, mean: Tensor | float, covariance: Tensor) -> None:
        """Give the moments.

        Args:
            mean: Broadcastable to y.
            covariance: (grid, grid), symmetric and positive semi-definite.

        Raises:
            ValueError: If covariance is neither.
        """
        covariance = covariance.to(torch.float64)
        if covariance.ndim != 2 or not torch.allclose(covariance, covariance.mT):
            raise ValueError(f"covariance must be a symmetric matrix, got shape {tuple(covariance.shape)}")
        self.eigenvalues, self.modes = torch.linalg.eigh(covariance)
        if self.eigenvalues.min() < -1e-9 * self.eigenvalues.max():
            raise ValueError(f"covariance has a negative eigenvalue, {self.eigenvalues.min().item()}")
        self.eigenvalues = self.eigenvalues.clamp_min(0)
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.covariance = covariance

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """D(y; σ) = mean + C (C + σ² I)⁻¹ (y − mean), of y's shape; sigma 0-d or with y's dimensions."""
        eigenvalues = self.eigenvalues.to(y)[:, None]
        return self._scale(y, eigenvalues / (eigenvalues + sigma**2))

    def probability_flow(self, y: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Where the probability-flow ODE takes y (…, grid, variable) from σ to σ_next, exactly."""
        eigenvalues = self.eigenvalues.to(y)[:, None]
        return self._scale(y, ((eigenvalues + sigma_next**2) / (eigenvalues + sigma**2)).sqrt())

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Clean draws, float64 (…, grid, variable); the mean must be broadcastable to `shape`.

        By the symmetric root of C, which is the same on all machines, as the signs of eigenvectors are not.
        """
        white = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return self.mean + self.modes @ (self.eigenvalues.sqrt()[:, None] * (self.modes.mT @ white))

    def _scale(self, y: Tensor, factors: Tensor) -> Tensor:
        modes, mean = self.modes.to(y), self.mean.to(y)
        return mean + modes @ (factors * (modes.mT @ (y - mean)))


@dataclass(frozen=True)
class LinearGaussianForecast:
    """A toy atmosphere on a graph, x_{t+1} = A x_t + η with η ~ N(0, Q): its true forecasts are known.

    Given x_t, the state n steps later is Gaussian with mean Aⁿ x_t and covariance Σ_{k<n} Aᵏ Q Aᵏᵀ. So the
    ensemble of a trained forecaster can be compared with the true one, and its CRPS with the best possible.
    Make one with `on_graph`.

    Attributes:
        propagator: A (grid, grid), float64, all eigenvalues inside the unit circle.
        noise_covariance: Q (grid, grid), float64.
    """

    propagator: Tensor
    noise_covariance: Tensor

    @classmethod
    def on_graph(
        cls,
        edge_index: Tensor,
        num_nodes: int,
        memory: float = 0.9,
        mixing: float = 0.5,
        smoothness: float = 2.0,
    ) -> "LinearGaussianForecast":
        """Signals that decay, spread to the neighbours and are driven by smooth noise.

        With P the neighbourhood average (a node and those with an edge to it, equally weighted),
        A = memory · ((1 − mixing) I + mixing P) and Q = S Sᵀ, S = (I + smoothness (I − P))⁻¹ with its rows
        scaled so that each node's noise has variance 1 − memory².

        Args:
            edge_index: (2, edge) source and target nodes.
            num_nodes: Number of nodes.
            memory: Fraction of a uniform anomaly that remains after one step, 0 < memory < 1.
            mixing: Fraction shared with the neighbours, 0 … 1.
            smoothness: Squared correlation length of the noise, in edges, ≥ 0.

        Returns:
            The forecast problem.

        Raises:
            ValueError: If an argument is out of range.
        """
        if not (0 < memory < 1 and 0 <= mixing <= 1 and smoothness >= 0):
            raise ValueError(
                f"need 0 < memory < 1, 0 ≤ mixing ≤ 1, smoothness ≥ 0, got {memory}, {mixing}, {smoothness}"
            )
        identity = torch.eye(num_nodes, dtype=torch.float64)
        source, target = edge_index.cpu()
        average = identity.index_put((target, source), torch.ones((), dtype=torch.float64))
        average = average / average.sum(1, keepdim=True)
        shaping = torch.linalg.inv(identity + smoothness * (identity - average))
        shaping = shaping * math.sqrt(1 - memory**2) / shaping.norm(dim=1, keepdim=True)
        return cls(memory * ((1 - mixing) * identity + mixing * average), shaping @ shaping.mT)

    def forecast(self, x: Tensor, steps: int = 1) -> Gaussian:
        """The true distribution `steps` after the state x (…, grid, variable), with its exact denoiser."""
        mean, covariance = x.to(torch.float64), torch.zeros_like(self.noise_covariance)
        for _ in range(steps):
            mean = self.propagator @ mean
            covariance = self.propagator @ covariance @ self.propagator.mT + self.noise_covariance
        return Gaussian(mean, (covariance + covariance.mT) / 2)

    def denoiser(self, x: Tensor) -> Denoiser:
        """D(y; σ) of the next state, given past states x (batch, time, ensemble, grid, variable)."""
        return self.forecast(x[:, -1:])

    def climate(self) -> Gaussian:
        """The stationary distribution: C = A C Aᵀ + Q, summed by doubling."""
        covariance, power = self.noise_covariance, self.propagator
        while power.norm() > 1e-12:
            covariance = covariance + power @ covariance @ power.mT
            power = power @ power
        return Gaussian(0.0, (covariance + covariance.mT) / 2)

    def simulate(self, num_times: int, num_variables: int, generator: torch.Generator) -> Tensor:
        """A trajectory that starts in the climate: float64 (time, grid, variable)."""
        nodes = len(self.propagator)
        noise = Gaussian(0.0, self.noise_covariance).sample((num_times - 1, nodes, num_variables), generator)
        states = [self.climate().sample((nodes, num_variables), generator)]
        for eta in noise:
            states.append(self.propagator @ states[-1] + eta)
        return torch.stack(states)

    def best_crps(self, steps: int = 1) -> Tensor:
        """Expected CRPS of the perfect forecast at each node, (grid,): its standard deviation / √π."""
        nodes = len(self.propagator)
        variance = self.forecast(torch.zeros(nodes, 1), steps).covariance.diagonal()
        return (variance / math.pi).sqrt()
