"""Charts in widgets: a Matplotlib figure shown as an image, and a widget's picture where no kernel runs."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anywidget
import numpy as np
import PIL.Image
import traitlets
from ipywidgets import HTML, DOMWidget
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

PIXELS_PER_INCH = 100


def png(figure: Figure, dpi: int = PIXELS_PER_INCH) -> bytes:
    """The figure as a PNG; little compression, which takes a fifth of the time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


class Chart(anywidget.AnyWidget):
    """An image of a figure of its own, which any thread may redraw.

    Args:
        alt: what it shows, for those who cannot see it.
        width: of the figure, in inches; 100 pixels each.
        height: likewise.
        steady: leave the axes where they were first put, which halves the time of a redraw; not for charts
            whose labels grow.
    """

    _esm = """
    function render({ model, el }) {
      const image = document.createElement("img");
      image.className = "dl-chart";
      image.style.width = "100%";
      el.append(image);
      const paint = () => {
        URL.revokeObjectURL(image.src);
        image.alt = model.get("alt");
        image.src = URL.createObjectURL(new Blob([model.get("value")], { type: "image/png" }));
      };
      model.on("change:value", paint);
      paint();
      return () => model.off("change:value", paint);
    }
    export default { render };
    """
    value = traitlets.Bytes().tag(sync=True)  # PNG
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self, alt: str, width: float = 6.0, height: float = 3.5, steady: bool = True) -> None:
        self.figure = Figure(figsize=(width, height))
        self._steady, self._places = steady, list[Bbox]()
        self._drawing = threading.RLock()
        super().__init__(alt=alt)
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


class QuickChart(Chart):
    """A chart of one axes that is drawn many times a second.

    Ticks, labels and grid take nearly all the time of a picture; they are drawn anew only where the limits or
    the colours of the axes have changed.

    Args:
        alt: as `Chart`.
        width: as `Chart`.
        height: as `Chart`.
        dress: gives the empty axes their scales, labels and grid, once.
        place: left, bottom, width and height of the axes as parts of the figure's.
    """

    def __init__(
        self,
        alt: str,
        width: float,
        height: float,
        dress: Callable[[Axes], None],
        place: tuple[float, float, float, float] = (0.19, 0.19, 0.77, 0.69),
    ) -> None:
        super().__init__(alt, width, height)
        self.figure.set_dpi(1.5 * PIXELS_PER_INCH)  # sharp where the page is wide or the screen fine
        self._canvas = FigureCanvasAgg(self.figure)
        self.figure.set_layout_engine("none")  # a style sheet may ask for one; the axes have their place
        self.ax = self.figure.add_axes(place)
        dress(self.ax)
        self._ground: Any = None
        self._ground_of: tuple = ()

    def draw(self, fill: Callable[[Axes], None], look: Callable[[Axes], None], name: str = "") -> None:
        """Show the axes with what `fill` puts on them in place of what was there.

        Args:
            fill: adds lines, bars, marks, text and a legend, sets limits and a title whose `y` is given.
            look: colours the axes and the text on them.
            name: of the look; another one has the axes drawn anew.
        """
        with self._drawing:
            for container in [*self.ax.containers]:  # of bars, which they would outlive
                container.remove()
            for artist in _content(self.ax):
                artist.remove()
            fill(self.ax)
            look(self.ax)
            above = [spine for spine in self.ax.spines.values() if spine.get_visible()]
            content = sorted([*_content(self.ax), *above, self.ax.title], key=lambda artist: artist.zorder)
            axes = (self.ax.get_xlim(), self.ax.get_ylim(), name)
            if axes != self._ground_of:
                self._draw_ground(content)
                self._ground_of = axes
            self._canvas.restore_region(self._ground)
            for artist in content:
                self.ax.draw_artist(artist)
            self.value = _encoded(self._canvas)

    def _draw_ground(self, content: list[Artist]) -> None:
        for artist in content:
            artist.set_visible(False)
        self._canvas.draw()
        self._ground = self._canvas.copy_from_bbox(self.figure.bbox)
        for artist in content:
            artist.set_visible(True)


def _content(ax: Axes) -> list[Artist]:
    legend = ax.get_legend()
    return [*ax.collections, *ax.patches, *ax.lines, *ax.texts, *([legend] if legend else [])]


def _encoded(canvas: FigureCanvasAgg) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def turning(chart: Chart) -> HTML:
    """Make a chart in black on white dark where the page is; returns the style, to be put beside it."""
    chart.add_class("dl-turning")
    rule = "[data-jp-theme-light=false] .dl-turning { filter: invert(0.93) hue-rotate(180deg); }"
    return HTML(f"<style>{rule}</style>", layout={"display": "none"})


class Pictured(DOMWidget):
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

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(include=include, exclude=exclude)
        bundle["text/plain"] = self.summary()
        bundle["image/png"] = base64.b64encode(png(self.figure())).decode()
        return bundle
