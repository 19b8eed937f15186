"""Statistics of a store, computed in one pass over its dates.

Sums are compensated (Neumaier, 1974) and squared deviations merged block by block (Chan, Golub and LeVeque,
1983), all in float64, so that neither a large mean (geopotential) nor many blocks cost precision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """Statistics over time, ensemble and cells: (variable,) float64, in physical units.

    `stdev` is the population standard deviation (divided by n). All are NaN for a variable without values.
    """

    mean: np.ndarray
    stdev: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray


STATISTICS = Statistics._fields


class StatisticsCollector:
    """State and tendency statistics over a window of dates, fed with consecutive blocks of time.

    The tendency of lead n at date t is x(t) - x(t - n); it counts if both dates are in the window. `state` is
    all that must be saved to resume, (1 + leads, 6, variable) float64: count, sum, compensation of the sum,
    sum of squared deviations from the mean, minimum and maximum of the states and of each tendency.

    Args:
        num_variables: number of variables.
        in_window: (time,) bool, which dates of the store count.
        leads: length in time steps of each tendency lead, by name.
    """

    def __init__(self, num_variables: int, in_window: np.ndarray, leads: Mapping[str, int]) -> None:
        self.in_window = in_window
        self.leads = dict(leads)
        self.state = np.zeros((1 + len(leads), 6, num_variables))
        self.state[:, 4:] = [[np.inf], [-np.inf]]
        self.reach = max(self.leads.values(), default=0)
        # Views of the fields before the next block, oldest first.
        self._past: deque[np.ndarray] = deque(maxlen=self.reach)

    def remember(self, fields: np.ndarray) -> None:
        """Add fields (time, variable, cell) before the next block that count only in its tendencies."""
        self._past.extend(fields)

    def update(self, start: int, values: np.ndarray) -> None:
        """Add the block (time, variable, cell) of dates from index `start` on.

        The block before it must have been added or remembered; `values` must not be changed afterwards.
        """
        past = len(self._past)
        inside = self.in_window[start - past : start + len(values)]
        for variable in range(values.shape[1]):
            x = np.array([field[variable] for field in (*self._past, *values)], np.float64)
            _add(self.state[0, :, variable], x[past:][inside[past:]])
            for tendency, steps in zip(self.state[1:], self.leads.values(), strict=True):
                # The dates of the block that have a date `steps` before them.
                later = np.arange(max(past, steps), len(x))
                later = later[inside[later] & inside[later - steps]]
                _add(tendency[:, variable], x[later] - x[later - steps])
        self.remember(values)

    def result(self) -> tuple[Statistics, dict[str, Statistics]]:
        """Statistics of the states, and of the tendencies by lead."""
        states, *tendencies = map(_statistics, self.state)
        return states, dict(zip(self.leads, tendencies, strict=True))


def _add(state: np.ndarray, values: np.ndarray) -> None:
    """Add the values of one variable to its state (6,), in place; NaN are skipped."""
    x = values[~np.isnan(values)]
    if x.size == 0:
        return
    count, total, compensation, squares, minimum, maximum = state
    block_total = x.sum()
    block_mean = block_total / x.size
    squares += np.square(x - block_mean).sum()
    if count:
        delta = block_mean - (total + compensation) / count
        squares += delta**2 * (count * x.size / (count + x.size))
    new_total = total + block_total
    # Neumaier: the digits of the smaller summand that were lost in the addition.
    small, large = sorted((total, block_total), key=abs)
    compensation += (large - new_total) + small
    extremes = min(minimum, x.min()), max(maximum, x.max())
    state[:] = (count + x.size, new_total, compensation, squares, *extremes)


def _statistics(state: np.ndarray) -> Statistics:
    state = np.where(state[0] > 0, state, np.nan)
    count, total, compensation, squares, minimum, maximum = state
    return Statistics((total + compensation) / count, np.sqrt(squares / count), minimum, maximum)
