"""Forcings computed from date and position alone, with the names and formulas of earthkit-data."""

from __future__ import annotations

import numpy as np

CONSTANT_FORCINGS = ("cos_latitude", "sin_latitude", "cos_longitude", "sin_longitude")
_VARYING_FORCINGS = ("cos_local_time", "sin_local_time", "cos_julian_day", "sin_julian_day", "insolation")
COMPUTED_FORCINGS = CONSTANT_FORCINGS + _VARYING_FORCINGS


def compute_forcing(
    name: str, dates: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray
) -> np.ndarray:
    """Compute a dimensionless forcing (time, cell) float32.

    Cosine and sine of: latitude; longitude; local time (mean solar time, period 24 h); julian day (days since
    1 January 00 UTC, period 365.25 d). `insolation` is the instantaneous cosine of the solar zenith angle, 0
    at night.

    Args:
        name: one of `COMPUTED_FORCINGS`.
        dates: (time,) datetime64, UTC.
        latitudes: (cell,) degrees.
        longitudes: (cell,) degrees.

    Raises:
        KeyError: if the name is unknown.
    """
    if name not in COMPUTED_FORCINGS:
        raise KeyError(f"Unknown computed forcing {name!r}; one of {', '.join(COMPUTED_FORCINGS)}.")
    dates = np.asarray(dates).astype("datetime64[s]")
    longitudes = np.asarray(longitudes, np.float64)
    if name == "insolation":
        return cos_solar_zenith_angle(dates, latitudes, longitudes).clip(min=0).astype(np.float32)
    function, _, what = name.partition("_")
    angle = {
        "latitude": lambda: np.radians(np.asarray(latitudes, np.float64))[np.newaxis],
        "longitude": lambda: np.radians(longitudes)[np.newaxis],
        "local_time": lambda: np.radians(15 * _hours(dates)[:, np.newaxis] + longitudes),
        "julian_day": lambda: _year_angle(dates)[:, np.newaxis],
    }[what]()
    values = {"cos": np.cos, "sin": np.sin}[function](angle)
    return np.broadcast_to(values, (len(dates), len(longitudes))).astype(np.float32)


def cos_solar_zenith_angle(dates: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Instantaneous cosine of the solar zenith angle (time, cell) float64, negative at night.

    The Fourier series of declination and equation of time are those of earthkit-meteo (after Hogan and
    Hirahara, 2015, ECMWF Technical Memorandum 758), which truncates dates to hours; here minutes count. The
    arguments are those of `compute_forcing`.
    """
    dates = np.asarray(dates).astype("datetime64[s]")
    angle = _year_angle(dates)
    cos1, sin1, cos2, sin2 = np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)
    cos3, sin3 = np.cos(3 * angle), np.sin(3 * angle)
    declination = 0.396372 - 22.91327 * cos1 + 4.025430 * sin1 - 0.387205 * cos2 + 0.051967 * sin2
    declination = np.radians(declination - 0.154527 * cos3 + 0.084798 * sin3)
    # Equation of time, in degrees of hour angle.
    correction = 0.004297 + 0.107029 * cos1 - 1.837877 * sin1 - 0.837378 * cos2 - 2.340475 * sin2
    noon_angle = 15 * (_hours(dates) - 12) + correction
    hour_angle = np.radians(noon_angle[:, np.newaxis] + np.asarray(longitudes, np.float64))
    latitude = np.radians(np.asarray(latitudes, np.float64))
    return np.sin(declination)[:, np.newaxis] * np.sin(latitude) + (
        np.cos(declination)[:, np.newaxis] * np.cos(latitude) * np.cos(hour_angle)
    )


def _hours(dates: np.ndarray) -> np.ndarray:
    return (dates - dates.astype("datetime64[D]")) / np.timedelta64(1, "h")


def _year_angle(dates: np.ndarray) -> np.ndarray:
    days = (dates - dates.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    return 2 * np.pi * days / 365.25
