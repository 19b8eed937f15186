"""What is corrupted, what is predicted, and how it is weighted.

Training minimises E_{σ, target, ε} [ λ(σ) ‖D(target + σε; σ) − target‖² ] (EDM, Karras et al. 2022, Eq. 2 and
Table 1), where the norm is the area- and variable-weighted one of `MSELoss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion_lab.noise import SphericalNoise
from diffusion_lab.schedules import KarrasUniform


class LevelDistribution(Protocol):
    """Draws training noise levels; see `schedules.KarrasUniform` and its siblings."""

    def sample(self, batch: int, ensemble: int, generator: torch.Generator) -> Tensor:
        """Levels σ of shape (batch, 1, ensemble, 1, 1)."""
        ...


class DiffusionObjective:
    """Noise levels, corruption and loss weights of EDM training.

    Args:
        sigma_max: highest noise level.
        sigma_min: lowest noise level.
        rho: levels are uniform in σ^(1/ρ).
        sigma_data: standard deviation of the target.
        levels: another distribution of noise levels, instead of the first three arguments.
        field: isotropic noise on the sphere instead of white noise on the grid; sampling must use the same.
    """

    def __init__(
        self,
        sigma_max: float = 100.0,
        sigma_min: float = 0.02,
        rho: float = 7.0,
        sigma_data: float = 1.0,
        levels: LevelDistribution | None = None,
        field: SphericalNoise | None = None,
    ) -> None:
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}")
        self.sigma_data, self.field = sigma_data, field
        self.levels = levels if levels is not None else KarrasUniform(sigma_max, sigma_min, rho)

    def corrupt(
        self, target: Tensor, generator: torch.Generator | Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Draw σ and ε and noise the target, (batch, 1, ensemble, grid, variable).

        Args:
            target: the clean target.
            generator: one for the batch, or one for each sample: then what a sample gets does not depend on
                the batch it is in, nor on the number of devices.

        Returns:
            y = target + σε, of target's shape, and σ, (batch, 1, ensemble, 1, 1).
        """
        if not isinstance(generator, torch.Generator):
            samples = zip(target.split(1), generator, strict=True)
            pairs = [self.corrupt(sample, own) for sample, own in samples]
            return torch.cat([y for y, _ in pairs]), torch.cat([sigma for _, sigma in pairs])
        batch, _, ensemble = target.shape[:3]
        sigma = self.levels.sample(batch, ensemble, generator).to(target.device)
        return target + sigma * self._noise(target.shape, generator).to(target), sigma

    def _noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Unit-variance noise of a target's shape (…, grid, variable)."""
        if self.field is None:
            return torch.randn(shape, generator=generator, device=generator.device)
        modes = (*shape[:-2], self.field.num_modes, shape[-1])
        return self.field.synthesise(torch.randn(modes, generator=generator, device=generator.device))

    def pre_loss_weights(self, sigma: Tensor) -> Tensor:
        """λ(σ) = (σ² + σ_data²)/(σ·σ_data)², which makes the loss of an untrained F = 0 be 1 at every σ."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


class MSELoss(nn.Module):
    """Weighted squared error: variables by their weight, nodes by their area.

    The scaled errors are averaged over variables (divided by their count), summed over the grid with node
    weights that sum to 1, and averaged over batch, time and ensemble.

    Args:
        node_weights: (grid,), any positive scale.
        variable_weights: (variable,), one factor each; all 1 if left out.
    """

    node_weights: Tensor
    variable_weights: Tensor | None

    def __init__(self, node_weights: Tensor, variable_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        node_weights = torch.as_tensor(node_weights, dtype=torch.float64)
        if not (node_weights >= 0).all() or not node_weights.sum() > 0:
            raise ValueError("node_weights must be non-negative with a positive sum")
        variables = None if variable_weights is None else torch.tensor(variable_weights, dtype=torch.float32)
        self.register_buffer("node_weights", (node_weights / node_weights.sum()).float(), persistent=False)
        self.register_buffer("variable_weights", variables, persistent=False)

    def per_sample(self, prediction: Tensor, target: Tensor, pre_loss_weights: Tensor) -> Tensor:
        """Loss of each sample and member.

        Args:
            prediction: (batch, time, ensemble, grid, variable).
            target: the shape of prediction.
            pre_loss_weights: λ(σ), (batch, 1, ensemble, 1, 1).

        Returns:
            (batch, ensemble).
        """
        error = pre_loss_weights * (prediction.float() - target.float()).square()
        if self.variable_weights is not None:
            error = error * self.variable_weights
        # A product and a sum, not a matrix product: autocast would do that in bf16.
        return (error.mean(-1) * self.node_weights).sum(-1).mean(1)

    def forward(self, prediction: Tensor, target: Tensor, pre_loss_weights: Tensor) -> Tensor:
        """The mean of `per_sample`, a scalar."""
        return self.per_sample(prediction, target, pre_loss_weights).mean()
