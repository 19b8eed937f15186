"""Statistics of a store, gathered in one pass over its dates.

Sums are compensated (Neumaier, 1974) and squared deviations merged block by block (Chan, Golub and LeVeque,
1983), all in float64, so that neither a large mean (geopotential) nor the number of blocks costs precision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """Statistics over time, ensemble and cells: one float64 value per variable, in physical units.

    `stdev` is the population standard deviation (divided by n). A variable without any value has NaN.
    """

    mean: np.ndarray
    stdev: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray


STATISTICS = ("mean", "stdev", "minimum", "maximum")


class RunningStatistics:
    """Statistics of all the values seen so far, NaN skipped.

    `state` is one float64 array (6, variable), which is all there is to save: count, sum, the sum's
    compensation, sum of squared deviations from the mean, minimum, maximum.
    """

    def __init__(self, num_variables: int) -> None:
        self.state = np.zeros((6, num_variables))
        self.state[4] = np.inf
        self.state[5] = -np.inf

    def update(self, variable: int, values: np.ndarray) -> None:
        """Add float64 values of one variable, of any shape."""
        x = values[~np.isnan(values)]
        if x.size == 0:
            return
        count, total, compensation, squares, minimum, maximum = self.state[:, variable]
        block_total = x.sum()
        block_mean = block_total / x.size
        squares += np.square(x - block_mean).sum()
        if count:
            delta = block_mean - (total + compensation) / count
            squares += delta**2 * (count * x.size / (count + x.size))
        new_total = total + block_total
        # Neumaier: the digits of the smaller summand that were lost in the addition.
        large, small = (total, block_total) if abs(total) >= abs(block_total) else (block_total, total)
        compensation += (large - new_total) + small
        self.state[:, variable] = (
            count + x.size,
            new_total,
            compensation,
            squares,
            min(minimum, x.min()),
            max(maximum, x.max()),
        )

    def result(self) -> Statistics:
        """The statistics of everything seen."""
        count, total, compensation, squares, minimum, maximum = self.state
        seen = np.where(count > 0, count, np.nan)
        return Statistics(
            mean=(total + compensation) / seen,
            stdev=np.sqrt(squares / seen),
            minimum=np.where(count > 0, minimum, np.nan),
            maximum=np.where(count > 0, maximum, np.nan),
        )


class StatisticsCollector:
    """State and tendency statistics over a window of dates, fed with consecutive blocks of time.

    The tendency of lead n at date t is x(t) - x(t - n); it counts if both dates lie in the window.

    Args:
        num_variables: number of variables.
        in_window: (time,) bool, the dates of all the store that count.
        leads: name of each tendency lead and its length in steps.
    """

    def __init__(self, num_variables: int, in_window: np.ndarray, leads: Mapping[str, int]) -> None:
        self.in_window = in_window
        self.leads = dict(leads)
        self.running = {name: RunningStatistics(num_variables) for name in ("", *self.leads)}
        self.reach = max(self.leads.values(), default=0)
        # Views of the fields just before the next block, oldest first.
        self._past: deque[np.ndarray] = deque(maxlen=self.reach)

    def remember(self, fields: np.ndarray) -> None:
        """Hand in the fields just before the next block, (time, variable, cell), without counting them."""
        self._past.extend(fields)

    def update(self, start: int, values: np.ndarray) -> None:
        """Add the block of dates that begins at index `start`.

        Args:
            start: index of the block's first date; the block before it must have been fed (or remembered).
            values: (time, variable, cell) float32, not to be changed afterwards.
        """
        past = len(self._past)
        inside = self.in_window[start - past : start + len(values)]
        for variable in range(values.shape[1]):
            x = np.array([field[variable] for field in (*self._past, *values)], np.float64)
            self.running[""].update(variable, x[past:][inside[past:]])
            for name, steps in self.leads.items():
                # The block's own dates that have a date `steps` before them.
                later = np.arange(max(past, steps), len(x))
                later = later[inside[later] & inside[later - steps]]
                self.running[name].update(variable, x[later] - x[later - steps])
        self.remember(values)

    @property
    def state(self) -> np.ndarray:
        """All that has been gathered, (1 + leads, 6, variable) float64; set it to resume."""
        return np.stack([running.state for running in self.running.values()])

    @state.setter
    def state(self, state: np.ndarray) -> None:
        for running, saved in zip(self.running.values(), state, strict=True):
            running.state = saved.copy()

    def result(self) -> tuple[Statistics, dict[str, Statistics]]:
        """The state's statistics, and those of the tendencies by lead."""
        return self.running[""].result(), {name: self.running[name].result() for name in self.leads}
