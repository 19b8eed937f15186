"""Reproducible noise, with a stream for each member and draw, so no draw depends on the rest of the batch.

    noise = MemberNoise(seed=0).at(start=date, lead=1, members=range(16), shape=(1, 2048, 8))
    y = sigmas[0] * noise(0)                                # draw 0: the initial state
    for step in heun(denoiser, y, sigmas, S_churn=2.5, noise=noise): ...     # churn: draws 1, 2, …

Each (time, grid, variable) field is drawn by its own generator, whose key is a hash of
(seed, start, lead, member, draw). A member's noise is bit-equal for any batch, order, chunking or number of
devices; it is drawn on the CPU, so it is the same on every device.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Start = int | np.datetime64
Lead = int | np.timedelta64


class Field(Protocol):
    """A field of unit variance, synthesised from independent N(0, 1) coefficients."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Tensor:
        """Float32 (time, coefficient, variable) for a field of `shape` = (time, grid, variable)."""
        ...

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """The field (…, grid, variable) of coefficients (…, coefficient, variable)."""
        ...

    def memory(self, correlation: float) -> Tensor:
        """The correlation of successive fields for each coefficient, (coefficient or 1, 1)."""
        ...


class WhiteNoise:
    """Independent N(0, 1) at every node: the coefficients are the field."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Tensor:
        """As `Field.draw`."""
        return _normal(rng, shape)

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """As `Field.synthesise`."""
        return coefficients

    def memory(self, correlation: float) -> Tensor:
        """As `Field.memory`: the same at all nodes."""
        return torch.tensor([[correlation]])


def _normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def noise_like(y: Tensor, generator: torch.Generator) -> Callable[[int], Tensor]:
    """White noise of y's shape and device from one generator, in the order of the calls.

    A simple alternative to `MemberNoise`, without keys for members. Returns a `noise(draw)` for the samplers,
    which ignores the number of the draw.
    """

    def noise(draw: int) -> Tensor:
        del draw
        drawn = torch.randn(y.shape, generator=generator, device=generator.device, dtype=torch.float32)
        return drawn.to(y.device)

    return noise


class SphericalNoise:
    """Isotropic Gaussian noise on the sphere up to a wavenumber, of unit variance at every node of any grid.

    A sum of real spherical harmonics with independent N(0, variance) coefficients. By the addition theorem
    Σ_m Y_lm(x)² = 2l + 1 at every point x, so the variance is the same everywhere. White noise on a
    latitude-longitude grid has most of its power near the poles; this noise is isotropic, without power above
    `max_wavenumber`.
    """

    def __init__(
        self, latitudes: ArrayLike, longitudes: ArrayLike, max_wavenumber: int, spectrum: Tensor | None = None
    ) -> None:
        """Compute the harmonics at the nodes: float32 (grid, (max_wavenumber + 1)²).

        Args:
            latitudes: Degrees north (grid,).
            longitudes: Degrees east (grid,).
            max_wavenumber: Highest total wavenumber L ≥ 0. With (L + 1)² below the number of nodes, some
                patterns on the grid are never excited.
            spectrum: Variance at each total wavenumber 0 … L, in any unit; by default equal for all modes:
                band-limited white noise.

        Raises:
            ValueError: If shapes do not fit or the spectrum is negative or zero throughout.
        """
        harmonics = spherical_harmonics(latitudes, longitudes, max_wavenumber)
        wavenumbers = torch.arange(max_wavenumber + 1)
        per_wavenumber = 2 * wavenumbers + 1
        variances = per_wavenumber.double() if spectrum is None else torch.as_tensor(spectrum).double()
        if variances.shape != wavenumbers.shape or variances.min() < 0 or variances.sum() == 0:
            raise ValueError(
                f"spectrum needs {max_wavenumber + 1} values ≥ 0, not all 0, one for each wavenumber 0 … "
                f"{max_wavenumber}; got {variances.tolist()}"
            )
        amplitudes = (variances / variances.sum() / per_wavenumber).sqrt().repeat_interleave(per_wavenumber)
        self.basis = (harmonics * amplitudes).float()

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Tensor:
        """As `Field.draw`.

        Raises:
            ValueError: If the grid is not that of the nodes.
        """
        time, grid, variable = shape
        if grid != len(self.basis):
            raise ValueError(f"shape {shape} has {grid} nodes, this noise was made for {len(self.basis)}")
        return _normal(rng, (time, self.num_modes, variable))

    @property
    def num_modes(self) -> int:
        """Harmonics up to the highest wavenumber, (L + 1)²."""
        return self.basis.shape[1]

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """As `Field.synthesise`, with a coefficient for each mode."""
        return self.basis.to(coefficients.device) @ coefficients

    def memory(self, correlation: float) -> Tensor:
        """As `Field.memory`: φ^(1 + (l/L)²) at wavenumber l, so the smallest scales decorrelate twice as
        fast.

        So they do in the atmosphere. With the same memory at all scales, what a network adds to small scales
        at each step accumulates: at five days the example had 1.5 times the power of the truth at l = 20.
        """
        wavenumbers = torch.arange(self.num_modes).double().sqrt().floor()  # l² … l² + 2l are those of l
        top = max(self.num_modes**0.5 - 1, 1)
        return (correlation ** (1 + (wavenumbers / top) ** 2)).float()[:, None]


def spherical_harmonics(latitudes: ArrayLike, longitudes: ArrayLike, max_wavenumber: int) -> Tensor:
    """Real spherical harmonics with mean square 1 over the sphere.

    From the recurrence of the normalised associated Legendre functions (Holmes & Featherstone 2002,
    doi:10.1007/s00190-002-0216-2, Eqs. 11-13), stable for the wavenumbers of any weather model.

    Args:
        latitudes: Degrees north (node,).
        longitudes: Degrees east (node,).
        max_wavenumber: Highest total wavenumber L ≥ 0.

    Returns:
        float64 (node, (L + 1)²), ordered l = 0 … L and m = −l … l within it; sines have m < 0.

    Raises:
        ValueError: If the coordinates are not two vectors of one length, or L is negative.
    """
    north, east = (torch.as_tensor(v).double().deg2rad() for v in (latitudes, longitudes))
    if north.ndim != 1 or north.shape != east.shape or max_wavenumber < 0:
        raise ValueError(
            f"need latitudes and longitudes of one shape (node,) and max_wavenumber ≥ 0, got "
            f"{tuple(north.shape)}, {tuple(east.shape)}, {max_wavenumber}"
        )
    x, cos_latitude = north.sin(), north.cos()
    columns: dict[tuple[int, int], Tensor] = {}
    sectoral = torch.ones_like(x)  # P̄_mm
    for m in range(max_wavenumber + 1):
        if m > 0:
            sectoral = sectoral * cos_latitude * math.sqrt((2 * m + 1) / (2 * m) * (2 if m == 1 else 1))
        before, legendre = torch.zeros_like(x), sectoral
        for degree in range(m, max_wavenumber + 1):
            if degree > m:
                a = math.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
                b = (
                    math.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1))
                    if degree > m + 1
                    else 0.0
                )
                before, legendre = legendre, a * (x * legendre - b * before)
            columns[degree, m] = legendre * (m * east).cos()
            if m > 0:
                columns[degree, -m] = legendre * (m * east).sin()
    return torch.stack([columns[key] for key in sorted(columns)], dim=1)


class MemberNoise:
    """Unit-variance Gaussian noise keyed by (seed, start, lead, member, draw).

    With a correlation φ > 0, a member's noise is autoregressive over the forecast steps:

        z₁ = ε₁,  zₖ = φ zₖ₋₁ + √(1 − φ²) εₖ

    with unit variance at every step, so a single step is sampled as before. What the input lacks (other
    levels and variables, the earlier past) persists for longer than a step, so the errors of successive steps
    are correlated. Independent noise averages out over the steps, those errors do not, and the spread grows
    too slowly. Stochastic physics has a memory for the same reason, longer for larger scales (Palmer et al.
    2009, ECMWF Technical Memorandum 598).
    """

    def __init__(self, seed: int, field: Field | None = None, correlation: float = 0.0) -> None:
        """Choose the seed, the field and its correlation between forecast steps.

        Args:
            seed: Of the whole experiment, a 64-bit integer.
            field: `WhiteNoise` by default, or a `SphericalNoise`.
            correlation: φ in [0, 1), at the largest scales, see `Field.memory`.

        Raises:
            ValueError: If the seed is not a 64-bit integer.
        """
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed = {seed!r} must be an integer of 64 bits, from 0 to 2^63 - 1")
        self.seed = seed
        self.field = field or WhiteNoise()
        memory = self.field.memory(correlation) if correlation else torch.zeros(1, 1)
        self._kept, self._fresh = memory, (1 - memory**2).sqrt()

    def at(
        self,
        start: Start | Sequence[Start],
        lead: Lead | Sequence[Lead] | NDArray[np.timedelta64],
        members: Sequence[int],
        shape: tuple[int, int, int],
        device: torch.device | str = "cpu",
    ) -> Callable[[int], Tensor]:
        """The noise of some members of one forecast step, as the `noise(draw)` that samplers take.

        Args:
            start: Start date of the forecast (or any integer that identifies a sample: in training its
                index), or one for each entry of the batch.
            lead: Lead time, or the number of the forecast step (in training: of the epoch); with a
                correlation, those of all steps so far, the present one last.
            members: Member numbers; `range(8, 16)` gives the second half of a 16-member ensemble.
            shape: (time, grid, variable) of one member.
            device: Of the result.

        Returns:
            `noise(draw)` → float32 (batch, time, ensemble, grid, variable). Draw 0 is the initial state;
            samplers use draw `index + 1` in step `index`.
        """
        starts, leads = _keys(start), _keys(lead)

        def noise(draw: int) -> Tensor:
            # Pinned memory is copied to a GPU without waiting for the work queued there.
            pinned = torch.device(device).type == "cuda"
            drawn = torch.empty(len(starts), shape[0], len(members), *shape[1:], pin_memory=pinned)
            for b, start_key in enumerate(starts):
                for e, member in enumerate(members):
                    drawn[b, :, e] = self._remembered(start_key, leads, member, draw, shape)
            return drawn.to(device, non_blocking=pinned)

        return noise

    def _remembered(
        self, start: int, leads: list[int], member: int, draw: int, shape: tuple[int, int, int]
    ) -> Tensor:
        first, *later = (self.field.draw(self._generator(start, lead, member, draw), shape) for lead in leads)
        state = first
        for fresh in later:
            state = self._kept * state + self._fresh * fresh
        return self.field.synthesise(state)

    def _generator(self, start: int, lead: int, member: int, draw: int) -> np.random.Generator:
        key = struct.pack("<5q", self.seed, start, lead, member, draw)
        digest = hashlib.blake2b(key, digest_size=16).digest()
        # numpy, not torch.Generator: that keeps only 32 bits of a seed, so among the 10^6 keys of a
        # re-forecast set many would share their noise.
        return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))


def _keys(values: Start | Lead | Sequence[Start] | Sequence[Lead] | NDArray[np.timedelta64]) -> list[int]:
    if isinstance(values, int | np.integer | np.datetime64 | np.timedelta64):
        return [_seconds(values)]
    return [_seconds(value) for value in values]


def _seconds(value: Start | Lead) -> int:
    """An integer key; dates and durations are in seconds, whatever their numpy unit."""
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[s]").astype(np.int64))
    if isinstance(value, np.timedelta64):
        return int(value.astype("timedelta64[s]").astype(np.int64))
    return int(value)
