"""Reproducible noise, one stream per member and draw, so that no draw depends on who else is in the batch.

    noise = MemberNoise(seed=0).at(start=date, lead=1, members=range(16), shape=(1, 2048, 8))
    y = sigmas[0] * noise(0)                                # draw 0: the initial state
    for step in heun(denoiser, y, sigmas, S_churn=2.5, noise=noise): ...     # churn: draws 1, 2, …

Each (time, grid, variable) field is drawn by its own generator, whose key is a hash of
(seed, start, lead, member, draw). A member's noise is bit-equal whatever the batch, the order, the
chunking or the number of devices; it is drawn on the CPU, so it is the same on every device.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Start = int | np.datetime64
Lead = int | np.timedelta64
Field = Callable[[np.random.Generator, tuple[int, int, int]], Tensor]


def white(rng: np.random.Generator, shape: tuple[int, int, int]) -> Tensor:
    """Independent N(0, 1) at every node: float32 of `shape` = (time, grid, variable)."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def noise_like(y: Tensor, generator: torch.Generator) -> Callable[[int], Tensor]:
    """White noise of y's shape and device from one generator, in the order of the calls.

    The plain choice where members need no keys of their own (`MemberNoise` gives them). Returns a
    `noise(draw)` for the samplers; it ignores the draw's number.
    """

    def noise(draw: int) -> Tensor:
        del draw
        drawn = torch.randn(y.shape, generator=generator, device=generator.device, dtype=torch.float32)
        return drawn.to(y.device)

    return noise


class MemberNoise:
    """Unit-variance Gaussian noise keyed by (seed, start, lead, member, draw)."""

    def __init__(self, seed: int, field: Field = white) -> None:
        """Choose the seed and how a field is drawn.

        Args:
            seed: Of the whole experiment, a 64-bit integer.
            field: Draws one field from a generator: `white`, or a `SphericalNoise`.
        """
        self.seed = seed
        self.field = field

    def at(
        self,
        start: Start | Sequence[Start],
        lead: Lead,
        members: Sequence[int],
        shape: tuple[int, int, int],
        device: torch.device | str = "cpu",
    ) -> Callable[[int], Tensor]:
        """The noise of some members of one forecast step, as the `noise(draw)` that samplers take.

        Args:
            start: Start date of the forecast (or any integer that names a sample: in training its index),
                or one for each entry of the batch.
            lead: Lead time, or the number of the forecast step (in training: of the epoch).
            members: Member numbers; `range(8, 16)` gives the second half of a 16-member ensemble.
            shape: (time, grid, variable) of one member.
            device: Where the noise is wanted.

        Returns:
            `noise(draw)` → float32 (batch, time, ensemble, grid, variable). Draw 0 is the initial state;
            samplers use draw `index + 1` in step `index`.
        """
        starts = [_seconds(s) for s in (start if isinstance(start, Sequence | np.ndarray) else [start])]
        lead_key = _seconds(lead)

        def noise(draw: int) -> Tensor:
            fields = [[self._draw(s, lead_key, m, draw, shape) for m in members] for s in starts]
            return torch.stack([torch.stack(row, dim=1) for row in fields]).to(device)

        return noise

    def _draw(self, start: int, lead: int, member: int, draw: int, shape: tuple[int, int, int]) -> Tensor:
        key = struct.pack("<5q", self.seed, start, lead, member, draw)
        digest = hashlib.blake2b(key, digest_size=16).digest()
        # numpy, not torch.Generator: that keeps only 32 bits of a seed, so among the 10^6 keys of a
        # re-forecast set many would share their noise.
        return self.field(np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little"))), shape)


def _seconds(value: Start | Lead) -> int:
    """An integer key; dates and durations count in seconds, whatever numpy unit they come in."""
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[s]").astype(np.int64))
    if isinstance(value, np.timedelta64):
        return int(value.astype("timedelta64[s]").astype(np.int64))
    return int(value)
