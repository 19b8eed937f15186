import datetime

import numpy as np
import pytest

from diffusion_lab.stores.dates import (
    check_sorted,
    even_frequency,
    lead_name,
    lead_timedelta,
    parse_date,
    period,
    spread_out,
)


@pytest.mark.parametrize(
    ("lead", "name"),
    [("6h", "6h"), ("24h", "1d"), ("48h", "2d"), ("36h", "36h"), (6, "6h"), ("90m", "90m"), ("3600s", "1h")],
)
def test_lead_name_is_the_largest_unit_that_divides(lead, name):
    assert lead_name(lead) == name
    assert lead_name(lead_timedelta(lead)) == name


@pytest.mark.parametrize("lead", ["", "h", "1.5h", "-6h", "0h", "6 hours"])
def test_lead_that_is_none(lead):
    with pytest.raises(ValueError, match="time"):
        lead_timedelta(lead)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2025-01-01", "2025-01-01T00"),
        ("2025-01-01T12", "2025-01-01T12"),
        ("2025-01-01 06:00", "2025-01-01T06"),
        ("20250201", "2025-02-01T00"),  # the day, not the year 20250201
        (20250201, "2025-02-01T00"),
        ("20250101T12:00:00", "2025-01-01T12"),
        (datetime.date(2025, 1, 1), "2025-01-01T00"),
        (np.datetime64("2025-01-01T12:00:00.000000000"), "2025-01-01T12"),
    ],
)
def test_dates(text, date):
    assert parse_date(text) == np.datetime64(date)


def test_a_date_keeps_its_precision():
    """What `period` makes of it depends on that."""
    assert [np.datetime_data(parse_date(date))[0] for date in ("2025", 2025, "2025-02", "20250201")] == list(
        "YYMD"
    )


NOT_DATES = [
    *("tomorrow", "now", "today", "NaT", "None", None, -1, 0, "0", True, 2025.0),
    *("2025-1-1", "2025-13-01", "20251301", "2025-01-01T12:00:00.000000001", "2025-01-01T12Z", "202501"),
    *(np.datetime64("NaT"), np.datetime64("2025-01-01T12:00:00.000000001")),
]


@pytest.mark.parametrize("date", NOT_DATES, ids=str)
def test_what_is_not_a_date(date):
    with pytest.raises(ValueError, match=r"is not a date.*; write it as 2025, 2025-06, "):
        parse_date(date)


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("2024", "2024-12-31T23:59:59"),
        ("2024-02", "2024-02-29T23:59:59"),
        ("2024-02-28", "2024-02-28T23:59:59"),
        ("2024-02-28T06", "2024-02-28T06:59:59"),
    ],
)
def test_period_includes_all_of_its_end(end, last):
    assert period("2020", end) == (np.datetime64("2020-01-01T00:00:00"), np.datetime64(last))


def test_period_that_ends_before_it_starts():
    with pytest.raises(ValueError, match="ends before it starts"):
        period("2024-02", "2023")


def hours(*values):
    return np.datetime64("2024-01-01", "s") + np.array(values) * np.timedelta64(3600, "s")


def test_messages_name_source_and_date():
    assert even_frequency(hours(0, 6, 12), "x.nc") == np.timedelta64(21600, "s")
    with pytest.raises(ValueError, match=r"x\.nc: the date 2024-01-01T06:00 appears twice"):
        check_sorted(hours(0, 6, 6), "x.nc")
    with pytest.raises(ValueError, match=r"not sorted, 2024-01-01T03:00 follows 2024-01-01T06:00"):
        check_sorted(hours(0, 6, 3), "x.nc")
    with pytest.raises(ValueError, match=r"from 2024-01-01T06:00 to 2024-01-01T18:00 is 12h.*6h apart"):
        even_frequency(hours(0, 6, 18), "x.nc")
    with pytest.raises(ValueError, match="index 1 is missing"):
        check_sorted(np.array(["2024-01-01", "NaT"], "datetime64[s]"), "x.nc")


DAY = np.timedelta64(1, "D")


def test_starts_are_spread_evenly():
    dates = np.datetime64("2025-01-01") + np.arange(31) * DAY
    assert spread_out(dates, 4).astype(str).tolist() == [
        "2025-01-01",
        "2025-01-11",
        "2025-01-21",
        "2025-01-31",
    ]
    assert len(spread_out(dates[:3], 26)) == 3


def test_starts_at_intervals_skip_what_is_lacking():
    dates = np.delete(np.datetime64("2025-01-01") + np.arange(31) * DAY, 14)
    every = spread_out(dates, 26, 7 * DAY)
    assert every.astype(str).tolist() == ["2025-01-01", "2025-01-08", "2025-01-22", "2025-01-29"]
    assert spread_out(dates, 2, 7 * DAY).astype(str).tolist() == ["2025-01-01", "2025-01-08"]
