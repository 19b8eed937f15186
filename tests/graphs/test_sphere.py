import numpy as np
import pytest

from diffusion_lab.graphs.sphere import (
    chord,
    direction_seen_from,
    great_circle_distance,
    to_latitude_longitude,
    to_unit_vectors,
)


def test_axes():
    vectors = to_unit_vectors([0.0, 0.0, 90.0], [0.0, 90.0, 17.0])
    np.testing.assert_allclose(vectors, np.eye(3), atol=1e-15)


def test_round_trip():
    latitudes, longitudes = np.array([-89.0, -12.5, 0.0, 71.25]), np.array([0.0, 359.0, 180.0, 42.0])
    back = to_latitude_longitude(3.0 * to_unit_vectors(latitudes, longitudes))
    np.testing.assert_allclose(back, [latitudes, longitudes], atol=1e-12)


def test_distance_is_accurate_when_tiny_and_when_antipodal():
    origin = to_unit_vectors(0.0, 0.0)
    assert great_circle_distance(origin, to_unit_vectors(0.0, np.rad2deg(1e-12))) == pytest.approx(1e-12)
    assert great_circle_distance(origin, -origin) == pytest.approx(np.pi)
    # London to New York by the haversine formula.
    a, b = (51.5074, -0.1278), (40.7128, -74.0060)
    (lat_a, lon_a), (lat_b, lon_b) = np.deg2rad(a), np.deg2rad(b)
    h = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    assert great_circle_distance(to_unit_vectors(*a), to_unit_vectors(*b)) == pytest.approx(
        2 * np.arcsin(np.sqrt(h))
    )


def test_chord_of_sixty_degrees_is_the_radius():
    assert chord(np.pi / 3) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("receiver", "sender", "expected"),
    [
        ((0, 20), (0, 30), (1, 0)),  # due east along the equator
        ((0, 20), (0, 10), (-1, 0)),
        ((50, 20), (60, 20), (0, 1)),  # due north along a meridian
        ((50, 20), (-60, 20), (0, -1)),
        ((0, 0), (45, 90), (np.sqrt(0.5), np.sqrt(0.5))),  # the great circle that crosses the equator at 45°
        ((0, 359), (0, 1), (1, 0)),  # across the date line of 0…360
        ((90, 0), (80, 0), (0, -1)),  # at the pole the longitude fixes the frame
        ((90, 0), (80, 90), (1, 0)),
        ((30, 40), (30, 40), (0, 0)),
    ],
)
def test_directions_worked_out_by_hand(receiver, sender, expected):
    direction = direction_seen_from(np.array([receiver], float), np.array([sender], float))
    np.testing.assert_allclose(direction, [expected], atol=1e-12)


def test_direction_is_the_initial_bearing():
    # Textbook formula of the initial course, Baghdad (35°N 45°E) to Osaka (35°N 135°E): 60.16° from north.
    direction = direction_seen_from(np.array([[35.0, 45.0]]), np.array([[35.0, 135.0]]))[0]
    assert np.rad2deg(np.arctan2(*direction)) == pytest.approx(60.16, abs=0.01)
