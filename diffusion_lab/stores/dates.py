"""Dates, frequencies and lead times, spelled as anemoi-datasets spells them (`6h`, `12h`, `1d`)."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_UNIT_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DATE = re.compile(r"(?!0000)\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?")
_DATE_REMEDY = "write it as 2025, 2025-06, 2025-06-15 or 2025-06-15T12"


class Period(NamedTuple):
    """A period of time, given by its first and last second."""

    first: np.datetime64
    last: np.datetime64


def parse_date(date: object) -> np.datetime64:
    """Read a date that a user wrote, at its own precision.

    Args:
        date: `"2025"`, `"2025-01"`, `"2025-01-15"`, `"2025-01-15T12:30:00"`; compact as in the guide,
            `20250115` and `"20250115T12:00:00"`; a `datetime.date`; or a datetime64.

    Raises:
        ValueError: it is written in another way, does not exist, or is finer than a second.
    """
    if isinstance(date, np.datetime64):
        seconds = date.astype("datetime64[s]")
        if np.isnat(date) or seconds != date:
            raise ValueError(f"{date} is not a date to the second; {_DATE_REMEDY}")
        coarser = np.datetime_data(date)[0] in ("Y", "M", "W", "D", "h", "m")
        return date if coarser else seconds
    text = str(date).strip().replace(" ", "T")
    if compact := re.fullmatch(r"(\d{4})(\d{2})(\d{2})(T.*)?", text):
        text = f"{compact[1]}-{compact[2]}-{compact[3]}{compact[4] or ''}"
    if isinstance(date, bool | float) or not _DATE.fullmatch(text):
        raise ValueError(f"{date!r} is not a date; {_DATE_REMEDY}")
    try:
        return np.datetime64(text)
    except ValueError:
        raise ValueError(f"{date!r} is not a date in the calendar; {_DATE_REMEDY}") from None


def lead_timedelta(lead: str | int | np.timedelta64) -> np.timedelta64:
    """Length of a lead time or frequency, `timedelta64[s]`.

    Args:
        lead: `"6h"`, `"1d"`, `"30m"`, `"90s"`; a number of hours, as in old stores; or a timedelta.

    Raises:
        ValueError: it is written in another way, or is not positive.
    """
    if isinstance(lead, np.timedelta64):
        seconds = int(lead.astype("timedelta64[s]").astype(int))
    else:
        match = re.fullmatch(r"\s*(\d+)\s*([dhms]?)\s*", str(lead))
        if match is None:
            raise ValueError(f"{lead!r} is not a length of time; write it as '6h', '12h' or '1d'.")
        seconds = int(match[1]) * _UNIT_SECONDS[match[2] or "h"]
    if seconds <= 0:
        raise ValueError(f"A length of time must be positive, got {lead!r}.")
    return np.timedelta64(seconds, "s")


def lead_name(lead: str | int | np.timedelta64) -> str:
    """Spell a lead time in the largest unit that divides it, so 24 hours are `1d`.

    Raises:
        ValueError: as `lead_timedelta`.
    """
    seconds = int(lead_timedelta(lead).astype(int))
    unit = next(unit for unit, size in _UNIT_SECONDS.items() if seconds % size == 0)
    return f"{seconds // _UNIT_SECONDS[unit]}{unit}"


def show_date(date: np.datetime64) -> str:
    """A date to the minute, for messages, such as `2025-01-31T12:00`."""
    return str(date.astype("datetime64[m]"))


def period(start: np.datetime64 | str, end: np.datetime64 | str) -> Period:
    """The period from one date to another, each taken at the precision that it is written with.

    Args:
        start: `2024` begins on 1 January at 00 UTC.
        end: included; `2024` ends on 31 December at 23:59:59, `2024-12-31T12` at 12:59:59.

    Raises:
        ValueError: one of them is not a date, see `parse_date`, or the end is before the start.
    """
    first, end_date = parse_date(start).astype("datetime64[s]"), parse_date(end)
    last = (end_date + 1).astype("datetime64[s]") - np.timedelta64(1, "s")
    if last < first:
        raise ValueError(f"The period from {start} to {end} ends before it starts.")
    return Period(first, last)


def spread_out(
    dates: NDArray[np.datetime64], count: int, every: np.timedelta64 | None = None
) -> NDArray[np.datetime64]:
    """Choose at most `count` of the dates (start,): evenly spread, or `every` apart from the first on."""
    if every is None:
        return dates[np.linspace(0, len(dates) - 1, min(count, len(dates))).round().astype(int)]
    wanted = dates[0] + np.arange(count) * every
    return wanted[np.isin(wanted, dates)]


def check_sorted(dates: np.ndarray, source: str) -> None:
    """Check that dates (time,) strictly ascend; `source` is what they belong to, for the messages.

    Raises:
        ValueError: naming the first date that is unsorted, duplicated or not a time.
    """
    if np.isnat(dates).any():
        raise ValueError(f"{source}: the date at index {np.isnat(dates).argmax()} is missing (NaT).")
    if (wrong := np.flatnonzero(np.diff(dates) <= np.timedelta64(0, "s"))).size:
        before, after = map(show_date, dates[wrong[0] : wrong[0] + 2])
        if dates[wrong[0]] == dates[wrong[0] + 1]:
            raise ValueError(f"{source}: the date {after} appears twice.")
        raise ValueError(f"{source}: dates are not sorted, {after} follows {before}. Sort them.")


def even_frequency(dates: np.ndarray, source: str) -> np.timedelta64:
    """The time step between dates (time,), `timedelta64[s]`; `source` is what they belong to, for messages.

    Raises:
        ValueError: naming the date at which they are unsorted, duplicated or uneven, or if there are not two.
    """
    if len(dates) < 2:
        raise ValueError(f"{source}: needs at least two dates to have a frequency, has {len(dates)}.")
    check_sorted(dates, source)
    steps = np.diff(dates.astype("datetime64[s]"))
    if (uneven := np.flatnonzero(steps != steps[0])).size:
        at = uneven[0]
        raise ValueError(
            f"{source}: the step from {show_date(dates[at])} to {show_date(dates[at + 1])} is "
            f"{lead_name(steps[at])}, but the dates before it are {lead_name(steps[0])} apart."
        )
    return steps[0]
