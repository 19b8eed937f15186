"""Charts in widgets: a Matplotlib figure shown as an image, and a widget's picture where no kernel runs."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipywidgets import HTML, Image
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

PIXELS_PER_INCH = 100


def png(figure: Figure, dpi: int = PIXELS_PER_INCH) -> bytes:
    """The figure as a PNG; little compression, which takes a fifth of the time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


class Chart(Image):
    """An image of a figure of its own, which any thread may redraw.

    Args:
        width: of the figure, in inches; 100 pixels each.
        height: likewise.
        steady: leave the axes where they were first put, which halves the time of a redraw; not for charts
            whose labels grow.
    """

    def __init__(self, width: float = 6.0, height: float = 3.5, steady: bool = True) -> None:
        self.figure = Figure(figsize=(width, height))
        self._steady, self._places = steady, list[Bbox]()
        self._drawing = threading.RLock()
        super().__init__(format="png")
        self.layout.width = f"{width * PIXELS_PER_INCH:g}px"
        self.layout.max_width = "100%"
        self.layout.flex = "0 1 auto"  # as wide as drawn; narrower where the page is, never stretched

    @contextmanager
    def redraw(self) -> Iterator[Figure]:
        """The cleared figure, to draw on; it is shown at the end, unless drawing failed."""
        with self._drawing:
            self.figure.clear()
            yield self.figure
            self._arrange()
            self.value = png(self.figure)

    def _arrange(self) -> None:
        """Make room for labels: measuring them takes as long as drawing."""
        axes = [ax for ax in self.figure.axes if ax.get_subplotspec()]  # others were put where they are
        if not axes:
            return
        if not self._steady or len(axes) != len(self._places):
            self.figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")
            self._places = [ax.get_position() for ax in axes]
        for ax, place in zip(axes, self._places, strict=True):
            ax.set_position(place)


def turning(chart: Chart) -> HTML:
    """Make a chart in black on white dark where the page is; returns the style, to be put beside it."""
    chart.add_class("dl-turning")
    rule = "[data-jp-theme-light=false] .dl-turning { filter: invert(0.93) hue-rotate(180deg); }"
    return HTML(f"<style>{rule}</style>", layout={"display": "none"})


class Pictured:
    """Mixin of a widget: its picture and its `summary()` are stored with the cell's output.

    So an unrun notebook, GitHub and exported HTML show the picture, and nbval compares the text. Mix it in
    before the widget's class.
    """

    def figure(self) -> Figure:
        """What the widget shows, as one figure."""
        raise NotImplementedError

    def summary(self) -> str:
        """One line that depends on the widget's settings and results alone: no durations, no identities."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = self.summary()
        bundle["image/png"] = base64.b64encode(png(self.figure())).decode()
        return bundle
