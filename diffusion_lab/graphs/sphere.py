"""Points, distances and directions on the unit sphere, in float64.

Angles at the interface are degrees for positions (as stores keep them) and radians for distances.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def to_unit_vectors(latitudes: ArrayLike, longitudes: ArrayLike) -> Float64:
    """Cartesian unit vectors of points on the sphere.

    Args:
        latitudes: (N,) degrees north.
        longitudes: (N,) degrees east, any branch.

    Returns:
        (N, 3): x towards (0°N, 0°E), y towards (0°N, 90°E), z towards the north pole.
    """
    latitude, longitude = np.deg2rad(latitudes), np.deg2rad(longitudes)
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)],
        axis=-1,
    )


def to_latitude_longitude(vectors: Float64) -> tuple[Float64, Float64]:
    """Latitudes in -90…90° and longitudes in 0…360° of (N, 3) vectors of any length but zero."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.rad2deg(np.arctan2(y, x)) % 360.0


def great_circle_distance(a: Float64, b: Float64) -> Float64:
    """Angle in radians between unit vectors (…, 3), accurate for tiny and for antipodal angles alike."""
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1))


def chord(angle: float | Float64) -> float | Float64:
    """Straight-line distance between unit vectors an `angle` (radians) apart."""
    return 2.0 * np.sin(np.asarray(angle) / 2.0)


def direction_seen_from(receivers: Float64, senders: Float64) -> Float64:
    """Direction of each sender as seen from its receiver, in the receiver's own east-north frame.

    The direction is that of the great circle as it leaves the receiver. East and north turn with the
    receiver, so that a rotation of all points about the polar axis changes nothing.

    Args:
        receivers: (E, 2) latitude and longitude in degrees; at a pole the longitude fixes the frame.
        senders: (E, 2) latitude and longitude in degrees.

    Returns:
        (E, 2) unit vectors (east, north); zero where the two points coincide or are antipodal.
    """
    latitude, longitude = np.deg2rad(receivers).T
    zero = np.zeros_like(latitude)
    east = np.stack([-np.sin(longitude), np.cos(longitude), zero], axis=-1)
    north = np.stack(
        [-np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)],
        axis=-1,
    )
    sender = to_unit_vectors(*np.transpose(senders))
    tangent = np.stack([np.sum(sender * east, axis=-1), np.sum(sender * north, axis=-1)], axis=-1)
    length = np.linalg.norm(tangent, axis=-1, keepdims=True)
    # Below 1e-9 rad (6 mm on Earth) the direction is rounding noise.
    return np.divide(tangent, length, out=np.zeros_like(tangent), where=length > 1e-9)


def gaussian_latitudes(count: int) -> NDArray[np.float64]:
    """Return the `count` Gaussian latitudes in degrees, from north to south."""
    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(count)[0][::-1]))
