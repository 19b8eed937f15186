"""The noise level as a vector: c_noise → sinusoids → a small MLP → one conditioning vector per sample."""

import torch
from torch import Tensor, nn


class SinusoidalEmbeddings(nn.Module):
    """Embed a scalar in sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017, §3.5).

    With z = num_channels / 2 the frequencies are f_k = max_period^(−k/z), k = 0 … z − 1, in radians per unit
    of the input, and the embedding is cat(sin(f·s), cos(f·s)).

    Args:
        num_channels: width of the embedding; even.
        max_period: ratio of the highest to (nearly) the lowest frequency.
    """

    frequencies: Tensor

    def __init__(self, num_channels: int, max_period: float = 1000.0) -> None:
        super().__init__()
        if num_channels < 2 or num_channels % 2:
            raise ValueError(f"num_channels must be even and at least 2, got {num_channels}")
        half = num_channels // 2
        exponents = torch.arange(half, dtype=torch.float64) / half
        self.register_buffer("frequencies", (max_period**-exponents).float(), persistent=False)

    def forward(self, s: Tensor) -> Tensor:
        """Embed s of shape (sample,); returns (sample, num_channels)."""
        angles = s[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class NoiseConditioning(nn.Module):
    """c_noise → embedding → Linear → SiLU → Linear: the vector that conditions every layer norm.

    Args:
        noise_channels: width of the sinusoidal embedding.
        noise_cond_dim: width of the conditioning vector.
        max_period: see `SinusoidalEmbeddings`.
    """

    def __init__(self, noise_channels: int, noise_cond_dim: int, max_period: float = 1000.0) -> None:
        super().__init__()
        self.embedding = SinusoidalEmbeddings(noise_channels, max_period)
        self.mlp = nn.Sequential(
            nn.Linear(noise_channels, noise_channels), nn.SiLU(), nn.Linear(noise_channels, noise_cond_dim)
        )

    def forward(self, c_noise: Tensor) -> Tensor:
        """Condition on c_noise of shape (sample,); returns (sample, noise_cond_dim)."""
        return self.mlp(self.embedding(c_noise))
