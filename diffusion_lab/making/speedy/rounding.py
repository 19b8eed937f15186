"""Rounding fields to multiples of a power of two: drops bits without information for better compression.

After Klöwer et al. (2021, doi:10.1038/s43588-021-00156-2), but with one absolute step per variable instead
of a number of bits per value, as a wind of 0.1 m s-1 needs no finer rounding than one of 30 m s-1. The values
are still ordinary float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def power_of_two(tolerance: float) -> float:
    """Return the largest power of two for which rounding to its multiples errs by at most `tolerance`.

    Raises:
        ValueError: the tolerance is not positive and finite.
    """
    if not 0 < tolerance < np.inf:
        raise ValueError(f"The tolerance must be positive and finite, not {tolerance}.")
    return float(2.0 ** np.floor(np.log2(2 * tolerance)))


def round_to(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """Return the multiples of `step`, a power of two, nearest to `values`; exact in float32, ties to even."""
    return (np.round(np.asarray(values, np.float64) / step) * step).astype(np.float32)
