import numpy as np
import pytest

from diffusion_lab.stores.forcings import COMPUTED_FORCINGS, compute_forcing, cos_solar_zenith_angle

LATITUDES = np.array([-75.0, 0.0, 10.0, 52.5])
LONGITUDES = np.array([-120.0, 0.0, 200.0, 13.4])
DATES = np.array(["2024-02-29T06", "2025-06-21T12", "2023-11-03T18"], "datetime64[h]")

# From earthkit-data 0.20.0 (sources/forcings.py), at the places and dates above.
EARTHKIT = {
    "cos_local_time": [
        [0.8660254, 0.0, 0.34202014, -0.2317479],
        [0.5, -1.0, 0.93969262, -0.97277588],
        [-0.8660254, 0.0, -0.34202014, 0.2317479],
    ],
    "sin_local_time": [
        [-0.5, 1.0, -0.93969262, 0.97277588],
        [0.8660254, 0.0, 0.34202014, -0.2317479],
        [0.5, -1.0, 0.93969262, -0.97277588],
    ],
    "cos_julian_day": [[0.52401033] * 4, [-0.98174325] * 4, [0.53495504] * 4],
    "sin_julian_day": [[0.85171191] * 4, [0.1902109] * 4, [-0.84488053] * 4],
    "insolation": [
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.91736104, 0.0, 0.85981541],
        [0.4748758, 0.0, 0.3432983, 0.0],
    ],
}


@pytest.mark.parametrize("name", EARTHKIT)
def test_equals_earthkit(name):
    values = compute_forcing(name, DATES, LATITUDES, LONGITUDES)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, EARTHKIT[name], rtol=0, atol=1e-7)


def test_places():
    half = 0.5
    root = np.sqrt(0.75)
    latitudes, longitudes = np.array([0.0, 60.0, -30.0]), np.array([-90.0, 300.0, 180.0])
    expected = {
        "cos_latitude": [1, half, root],
        "sin_latitude": [0, root, -half],
        "cos_longitude": [0, half, -1],
        "sin_longitude": [-1, -root, 0],
    }
    for name, values in expected.items():
        computed = compute_forcing(name, DATES[:2], latitudes, longitudes)
        np.testing.assert_allclose(computed, [values, values], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("day", "declination"), [("2025-06-21", 23.43), ("2025-12-21", -23.43), ("2025-03-20", 0.0)]
)
def test_sun_stands_highest_at_its_declination(day, declination):
    latitudes = np.linspace(-89.9, 89.9, 1799)
    noon = np.datetime64(f"{day}T12:00")
    height = cos_solar_zenith_angle(np.array([noon]), latitudes, np.zeros(1799))[0]
    assert latitudes[height.argmax()] == pytest.approx(declination, abs=0.5)


@pytest.mark.parametrize(("day", "minutes"), [("2025-11-03", 16.4), ("2025-02-11", -14.2)])
def test_sun_runs_ahead_by_the_equation_of_time(day, minutes):
    # The apparent sun is fast by `minutes`: at noon UTC it has passed Greenwich by a degree in four minutes.
    longitudes = np.linspace(-10, 10, 2001)
    noon = np.array([np.datetime64(f"{day}T12:00")])
    height = cos_solar_zenith_angle(noon, np.zeros(2001), longitudes)[0]
    assert longitudes[height.argmax()] == pytest.approx(-minutes / 4, abs=0.15)


def test_minutes_move_the_sun():
    dates = np.array(["2025-05-01T06:00", "2025-05-01T06:30"], "datetime64[m]")
    turned = cos_solar_zenith_angle(dates[:1], LATITUDES, LONGITUDES + 7.5)
    np.testing.assert_allclose(cos_solar_zenith_angle(dates[1:], LATITUDES, LONGITUDES), turned, atol=1e-3)


def test_unknown_name():
    with pytest.raises(KeyError, match=r"cos_lattitude.*cos_latitude, sin_latitude"):
        compute_forcing("cos_lattitude", DATES, LATITUDES, LONGITUDES)
    assert len(COMPUTED_FORCINGS) == 9
