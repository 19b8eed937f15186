"""Maps of fields, in the plate carrée projection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.tri import Triangulation
from numpy.typing import ArrayLike, NDArray

from diffusion_lab.plots.style import FIELD, degree_axes

Float64 = NDArray[np.float64]

_COAST: dict[str, Any] = {"levels": [0.5], "colors": "0.15", "linewidths": 0.7}
_WIDE_GAP = 30.0  # degrees of longitude without nodes: above, they cover a limited area
_MARGIN = 20.0  # degrees of longitude by which unstructured nodes are repeated beyond 180°


def field_map(
    ax: Axes,
    field: ArrayLike,
    latitudes: ArrayLike,
    longitudes: ArrayLike,
    field_shape: Sequence[int] | None = None,
    *,
    land: ArrayLike | None = None,
    cmap: str = FIELD,
    limits: tuple[float, float] | None = None,
) -> ScalarMappable:
    """Draw a field in colours, with coastlines where the land fraction crosses one half.

    A latitude-longitude grid is drawn cell by cell, any other set of nodes as shaded triangles. The map is
    cut at 180° if the nodes encircle the earth, else in their largest gap.

    Args:
        field: (cell,) values.
        latitudes: (cell,) degrees north.
        longitudes: (cell,) degrees east.
        field_shape: (latitude, longitude), the shape of the flattened grid; None for unstructured nodes.
        land: (cell,) land fraction; None draws no coastlines.
        cmap: name of a Matplotlib colour map.
        limits: of the colour scale; by default the smallest and largest value.

    Returns:
        The artist, for a colour bar.

    Raises:
        ValueError: if field, coordinates and land fraction differ in length, or do not fit field_shape.
    """
    field, latitudes, longitudes = (np.asarray(a, np.float64) for a in (field, latitudes, longitudes))
    coast = np.zeros_like(field) if land is None else np.asarray(land, np.float64)
    if field.ndim != 1 or not field.shape == coast.shape == latitudes.shape == longitudes.shape:
        raise ValueError(
            f"a map needs one value for each of {latitudes.size} cells, not shapes {field.shape} (field) and "
            f"{coast.shape} (land); select time and member first"
        )
    # An attribute of one entry comes back from a file as a number.
    shape: list[int] = np.atleast_1d(field.size if field_shape is None else field_shape).tolist()
    if math.prod(shape) != field.size:
        raise ValueError(f"field_shape {shape} does not hold {field.size} cells")
    west, whole_earth = western_edge(longitudes)
    longitudes = west + (longitudes - west) % 360
    low, high = limits or (np.nanmin(field), np.nanmax(field))
    colours: dict[str, Any] = {"cmap": cmap, "vmin": low, "vmax": high}
    if is_grid(latitudes, longitudes, shape):
        rows, columns, (field, coast) = _grid(latitudes, longitudes, shape, (field, coast), whole_earth)
        artist: ScalarMappable = ax.pcolormesh(columns, rows, field, shading="nearest", **colours)
        if np.ptp(coast) > 0:
            ax.contour(columns, rows, coast, **_COAST)
    else:
        triangles, (field, coast) = _triangles(latitudes, longitudes, (field, coast), whole_earth)
        artist = ax.tripcolor(triangles, field, shading="gouraud", **colours)
        if np.ptp(coast) > 0:
            ax.tricontour(triangles, coast, **_COAST)
    if whole_earth:
        ax.set(xlim=(west, west + 360), ylim=(-90, 90))
    ax.margins(0)
    # Degrees of longitude shrink with the cosine of the latitude.
    ax.set_aspect(1.0 if whole_earth else 1 / np.cos(np.deg2rad(latitudes.mean())))
    degree_axes(ax)
    return artist


def western_edge(longitudes: Float64) -> tuple[float, bool]:
    """Where to cut a map, in degrees east, and whether the nodes encircle the earth."""
    distinct = np.unique(np.mod(longitudes, 360))
    gaps = np.diff(distinct, append=distinct[0] + 360)
    widest = int(gaps.argmax())
    if gaps[widest] < _WIDE_GAP:
        return -180.0, True
    edge = float(distinct[(widest + 1) % len(distinct)])
    return (edge - 360 if edge >= 180 else edge), False


def is_grid(latitudes: Float64, longitudes: Float64, field_shape: Sequence[int]) -> bool:
    """Whether the cells are a flattened latitude-longitude grid."""
    if len(field_shape) != 2:
        return False
    rows, columns = latitudes.reshape(field_shape), longitudes.reshape(field_shape)
    return np.allclose(rows, rows[:, :1]) and np.allclose(columns, columns[:1])


def _grid(
    latitudes: Float64,
    longitudes: Float64,
    field_shape: Sequence[int],
    fields: Sequence[Float64],
    whole_earth: bool,
) -> tuple[Float64, Float64, list[Float64]]:
    """Rows, columns and fields (row, column) from west to east; round the earth, the first column repeats."""
    rows, columns = latitudes.reshape(field_shape)[:, 0], longitudes.reshape(field_shape)[0]
    order = np.argsort(columns)
    columns = columns[order]
    fields = [field.reshape(field_shape)[:, order] for field in fields]
    if whole_earth:
        columns = np.append(columns, columns[0] + 360)
        fields = [np.concatenate([field, field[:, :1]], axis=1) for field in fields]
    return rows, columns, fields


def _triangles(
    latitudes: Float64, longitudes: Float64, fields: Sequence[Float64], whole_earth: bool
) -> tuple[Triangulation, list[Float64]]:
    """Triangles and the fields at their corners, continued beyond 180° on the whole earth."""
    copies = np.arange(len(longitudes))
    shift = np.zeros(len(longitudes))
    if whole_earth:
        west = np.flatnonzero(longitudes > 180 - _MARGIN)
        east = np.flatnonzero(longitudes < -180 + _MARGIN)
        copies = np.concatenate([copies, west, east])
        shift = np.concatenate([shift, np.full(len(west), -360.0), np.full(len(east), 360.0)])
    return Triangulation(longitudes[copies] + shift, latitudes[copies]), [field[copies] for field in fields]
