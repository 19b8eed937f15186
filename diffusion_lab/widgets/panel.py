"""What the small widgets share: controls beside a chart that follows them, with or without a browser."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from ipywidgets import HTML, Dropdown, HBox, VBox
from matplotlib.figure import Figure

from diffusion_lab.widgets.chart_image import Chart, Pictured, turning
from diffusion_lab.widgets.slider import Slider

LOOK: dict[str, Any] = {  # of a menu, aligned with the sliders
    "layout": {"width": "304px", "max_width": "100%"},
    "style": {"description_width": "82px"},
}


def menu(description: str, values: Iterable[str], value: str) -> Dropdown:
    """A drop-down menu, aligned with the sliders."""
    return Dropdown(options=list(values), value=value, description=description, tooltip=description, **LOOK)


def geometric(low: float, high: float, per_decade: int = 20) -> list[float]:
    """Values from `low` to `high` at a constant ratio, rounded to three digits: a logarithmic slider."""
    ratio = 10 ** (1 / per_decade)
    values, value = [low], low * ratio
    while value < high / ratio**0.5:
        values.append(float(f"{value:.3g}"))
        value *= ratio
    return [*values, high]


class Panel(Pictured, VBox):
    """Controls beside a chart; a subclass says what it draws and `summary()`.

    An error appears below the controls; the widget stays usable.

    Args:
        controls: by the name of the setting.
        size: of the chart, width and height in inches.
    """

    def __init__(self, controls: Mapping[str, Slider | Dropdown], size: tuple[float, float]) -> None:
        self.controls = dict(controls)
        self.chart = Chart(type(self).__name__, *size)
        self.message = HTML()
        column = VBox([*self.controls.values(), self.message])
        row = HBox([column, self.chart], layout={"align_items": "flex-start", "flex_flow": "row wrap"})
        super().__init__([turning(self.chart), row])
        self._redraw()
        for control in self.controls.values():
            control.observe(self._moved, "value")

    @property
    def settings(self) -> dict[str, Any]:
        """The value of every control."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> None:
        """Move controls and redraw.

        Raises:
            KeyError: there is no such control.
            ValueError: what the controls ask for is out of range.
        """
        for name in values:
            if name not in self.controls:
                raise KeyError(f"there is no control {name!r}; there are {', '.join(self.controls)}")
        for name, value in values.items():
            control = self.controls[name]
            control.unobserve(self._moved, "value")
            try:
                control.value = value
            finally:
                control.observe(self._moved, "value")
        self._redraw()

    def figure(self) -> Figure:
        """The chart as it stands."""
        return self.chart.figure

    def draw(self, figure: Figure, **settings: Any) -> None:
        """Draw the settings on an empty figure."""
        raise NotImplementedError

    def _redraw(self) -> None:
        with self.chart.redraw() as figure:
            self.draw(figure, **self.settings)
        self.message.value = ""

    def _moved(self, change: object) -> None:
        # An exception in a callback is seen nowhere.
        try:
            self._redraw()
        except Exception as error:
            self.message.value = f"<b>{html.escape(str(error))}</b>"
