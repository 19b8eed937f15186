"""What the small widgets share: controls beside a chart that follows them, with or without a browser."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from ipywidgets import HTML, Dropdown, HBox, SelectionSlider, ValueWidget, VBox
from matplotlib.figure import Figure

from diffusion_lab.widgets.chart_image import Chart, Pictured, turning

# Look of a control: all labels and all sliders line up.
CONTROL = {"layout": {"width": "350px"}, "style": {"description_width": "88px"}}
_ROOM = "<style>.dl-panel .widget-readout { min-width: 100px; overflow: visible; }</style>"  # for dates


def slider(description: str, values: Iterable[Any], value: Any) -> SelectionSlider:
    """A slider that sends exactly these values, and `value`; a `FloatSlider` may round when it is shown."""
    options = _labelled({*values, value})
    return SelectionSlider(options=options, value=value, description=description, **CONTROL)


def menu(description: str, values: Iterable[str], value: str) -> Dropdown:
    """A drop-down menu, aligned with the sliders."""
    return Dropdown(options=list(values), value=value, description=description, **CONTROL)


def geometric(low: float, high: float, per_decade: int = 20) -> list[float]:
    """Values from `low` to `high` at a constant ratio, rounded to three digits: a logarithmic slider."""
    ratio = 10 ** (1 / per_decade)
    values, value = [low], low * ratio
    while value < high / ratio**0.5:
        values.append(float(f"{value:.3g}"))
        value *= ratio
    return [*values, high]


def _labelled(values: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(value if isinstance(value, str) else f"{value:g}", value) for value in sorted(values)]


class Panel(Pictured, VBox):
    """Controls beside a chart; a subclass says what it draws and `summary()`.

    An error appears below the controls; the widget stays usable.

    Args:
        controls: by the name of the setting.
        size: of the chart, width and height in inches.
    """

    def __init__(self, controls: Mapping[str, ValueWidget], size: tuple[float, float]) -> None:
        self.controls = dict(controls)
        self.chart = Chart(*size)
        self.message = HTML()
        column = VBox([*self.controls.values(), self.message])
        row = HBox([column, self.chart], layout={"align_items": "flex-start", "flex_flow": "row wrap"})
        room = HTML(_ROOM, layout={"display": "none"})
        super().__init__([turning(self.chart), room, row])
        self.add_class("dl-panel")
        self._redraw()
        for control in self.controls.values():
            control.observe(self._moved, "value")

    @property
    def settings(self) -> dict[str, Any]:
        """The value of every control."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> None:
        """Move controls and redraw; a value between a slider's own is added to them.

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
                if isinstance(control, SelectionSlider) and value not in [v for _, v in control.options]:
                    control.options = _labelled({*(v for _, v in control.options), value})
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
