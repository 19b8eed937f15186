import numpy as np
import pytest

from diffusion_lab.data.writer import StoreMetadata, Variable

LATITUDES = np.repeat([60.0, 0.0, -60.0], 4)
LONGITUDES = np.tile([0.0, 90.0, 180.0, 270.0], 3)


@pytest.fixture
def fields():
    """(30 dates, z t orography, 12 cells) float32."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 3, 12)) * np.array([500.0, 8.0, 0.0])[:, None]
    x += np.array([5.5e4, 250.0, 0.0])[:, None]
    x[:, 2] = np.arange(12)
    return x.astype(np.float32)


@pytest.fixture
def metadata():
    """Six-hourly from 1 January 2024, two dates missing, statistics over the first 20 dates."""
    dates = np.datetime64("2024-01-01") + np.arange(30) * np.timedelta64(6, "h")
    variables = [
        Variable("z500", "m2 s-2", long_name="geopotential"),
        Variable("t850", "K", "diagnostic"),
        Variable("orography", "m2 s-2", "forcing", constant_in_time=True),
    ]
    return StoreMetadata(
        variables,
        dates,
        LATITUDES,
        LONGITUDES,
        (3, 4),
        "3x4",
        statistics_window=("2024-01-01", dates[19]),
        missing_dates=dates[[4, 25]],
        attributes={"licence": "CC0"},
    )
