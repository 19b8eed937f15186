"""A field on a canvas: raw float32 bytes go to the browser, which colours them. No figure is drawn.

canvas = FieldCanvas("ensemble mean", units="K")
canvas.put(raster)                      # (row, column) values, north and west first; 29 ms to the screen
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import anywidget
import matplotlib
import numpy as np
import traitlets
from numpy.typing import ArrayLike, NDArray

from diffusion_lab.plots.style import FIELD
from diffusion_lab.stores.units import pretty_units


class FieldCanvas(anywidget.AnyWidget):
    """A field with title, colour bar, and the value under the pointer or the cross that arrow keys move.

    Args:
        title: above the field.
        units: of the values, as CF writes them.
        cmap: name of a Matplotlib colour map.
        width: of the picture, in CSS pixels; it gets narrower where the page is.

    Attributes:
        dark: whether the page has a dark theme, reported by the browser.
        old: whether the field is marked as not of the present setting; a new field is not.
    """

    _esm = Path(__file__).with_suffix(".js")
    field = traitlets.Bytes(b"\0\0\xc0\x7f").tag(sync=True)  # (row, column) float32; at first one NaN
    shape = traitlets.List([1, 1]).tag(sync=True)
    limits = traitlets.List([0.0, 1.0]).tag(sync=True)
    colours = traitlets.Bytes().tag(sync=True)  # 256 × (red, green, blue)
    title = traitlets.Unicode().tag(sync=True)
    units = traitlets.Unicode().tag(sync=True)
    lines = traitlets.Bytes().tag(sync=True)  # (x, y) float32 in cells; NaN lifts the pen
    latitudes: traitlets.List[float] = traitlets.List().tag(sync=True)  # of the rows
    longitudes: traitlets.List[float] = traitlets.List().tag(sync=True)  # of the columns
    stretch = traitlets.Float(1.0).tag(sync=True)  # height of a cell over its width
    width = traitlets.Int(250).tag(sync=True)
    dark = traitlets.Bool(False).tag(sync=True)
    old = traitlets.Bool(False).tag(sync=True)

    def __init__(self, title: str = "", units: str = "1", cmap: str = FIELD, width: int = 250) -> None:
        super().__init__(title=title, units=pretty_units(units), colours=colour_table(cmap), width=width)
        self.layout.width = f"{width}px"
        self.layout.max_width = "100%"

    def place(
        self, latitudes: ArrayLike, longitudes: ArrayLike, lines: ArrayLike = (), stretch: float = 1.0
    ) -> None:
        """Say where the cells of the field are.

        Args:
            latitudes: (row,) degrees north.
            longitudes: (column,) degrees east, −180 … 180.
            lines: (point, 2) column and row of lines such as coasts; NaN separates lines.
            stretch: height of a cell over its width.
        """
        with self.hold_sync():
            self.latitudes = np.asarray(latitudes, float).round(3).tolist()
            self.longitudes = np.asarray(longitudes, float).round(3).tolist()
            self.lines = np.asarray(lines, np.float32).tobytes()
            self.stretch = float(stretch)
            if self.shape == [1, 1]:  # an empty field of the right size, so that nothing jumps later
                self.shape = [len(self.latitudes), len(self.longitudes)]
                self.field = np.full(self.shape, np.nan, np.float32).tobytes()

    def put(
        self,
        field: ArrayLike,
        limits: tuple[float, float] | None = None,
        *,
        title: str | None = None,
        units: str | None = None,
    ) -> None:
        """Show a field, in one message to the browser.

        Args:
            field: (row, column); cells that are NaN stay empty.
            limits: ends of the colour scale; None takes the smallest and the largest value.
            title: a new title.
            units: new units, as CF writes them.

        Raises:
            ValueError: the field does not have two dimensions.
        """
        field = np.ascontiguousarray(field, np.float32)
        if field.ndim != 2:
            raise ValueError(f"a field has rows and columns, not the shape {field.shape}")
        if limits is None:
            finite = field[np.isfinite(field)]
            limits = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        with self.hold_sync():
            self.field, self.shape = field.tobytes(), list(field.shape)
            self.limits = [float(limit) for limit in limits]
            self.old = False
            self.title = self.title if title is None else title
            self.units = self.units if units is None else pretty_units(units)

    @property
    def values(self) -> NDArray[np.float32]:
        """What is shown, (row, column) float32."""
        return np.frombuffer(self.field, np.float32).reshape(self.shape)


@cache
def colour_table(cmap: str) -> bytes:
    """256 colours of a Matplotlib colour map, three bytes each.

    Raises:
        KeyError: there is no such colour map.
    """
    return (255 * matplotlib.colormaps[cmap](np.arange(256))[:, :3]).round().astype(np.uint8).tobytes()
