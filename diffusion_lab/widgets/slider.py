"""A slider whose number can also be typed, and which shows the kernel's value whatever its own range.

slider = Slider("rho", [1.0, 2.0, 5.0, 7.0], 7.0)
slider.on_hand(lambda value, moving: ...)   # called when a hand moved it, never when Python did
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

INFINITE = "∞"  # JSON has no infinity

Value = float | int | str


class Slider(anywidget.AnyWidget):
    """A track over explicit stops, and a box that takes any number between the first and the last.

    The value travels to the page as a trait and back as a message, which the kernel acknowledges. So the page
    neither returns a value that it merely displayed nor lets a late update undo a newer move. Changing the
    stops leaves the value as it is, even where it lies beyond them.

    Args:
        label: to the left of the track, and the control's accessible name.
        stops: in ascending order: numbers, the last of which may be infinite, or words such as dates.
        value: to begin with.
        help: tooltip.
        unit: spoken after the value, such as "members".
        limits: ends of what may be typed; None for those of the stops. Without stops there is only the box.
        play: milliseconds between the stops of a film, which gets a button; 0 for none.
        width: in CSS pixels; narrower where the page is.

    Attributes:
        value: of the kernel.
        whole: whether the values are integers.
        disabled: whether it is greyed and fixed.
    """

    _esm = Path(__file__).with_suffix(".js")
    label = traitlets.Unicode().tag(sync=True)
    help = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    value = traitlets.Any().tag(sync=True, to_json=lambda value, widget: _to_page(value))
    stops: traitlets.List[Value] = traitlets.List().tag(
        sync=True, to_json=lambda stops, widget: [_to_page(stop) for stop in stops]
    )
    limits: traitlets.List[float] = traitlets.List().tag(sync=True)
    whole = traitlets.Bool(False).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)
    play = traitlets.Int(0).tag(sync=True)
    heard: traitlets.List[Any] = traitlets.List().tag(sync=True)  # the page's view and its newest move

    def __init__(
        self,
        label: str,
        stops: Sequence[Value],
        value: Value,
        *,
        help: str = "",
        unit: str = "",
        limits: Sequence[float] | None = None,
        play: int = 0,
        width: int = 304,
    ) -> None:
        ends = _ends(stops) if limits is None else list(limits)
        whole = isinstance(value, int) and all(isinstance(stop, int) for stop in stops)
        super().__init__(
            label=label,
            stops=list(stops),
            value=value,
            help=help,
            unit=unit,
            limits=ends,
            whole=whole,
            play=play,
        )
        self.layout.width, self.layout.max_width = f"{width}px", "100%"
        self._hands: list[Callable[[Any, bool], None]] = []
        self.on_msg(self._hear)

    def on_hand(self, callback: Callable[[Any, bool], None]) -> None:
        """Have `callback(value, moving)` called when a hand has moved it; `moving` until it is let go."""
        self._hands.append(callback)

    def restrict(self, stops: Sequence[Value]) -> None:
        """Put other stops on the track; the value stays."""
        if list(stops) != self.stops:
            with self.hold_sync():
                self.stops, self.limits = list(stops), _ends(stops)

    def _hear(self, widget: object, message: dict[str, Any], buffers: object) -> None:
        value = message["value"]
        if value == INFINITE:
            value = float("inf")
        elif not isinstance(value, str):
            value = round(value) if self.whole else float(value)
        with self.hold_sync():
            self.heard = [message["view"], message["count"]]
            self.value = value
            for callback in self._hands:
                callback(value, message["moving"])


def _ends(stops: Sequence[Value]) -> list[float]:
    finite = [stop for stop in stops if not isinstance(stop, str) and stop != float("inf")]
    return [finite[0], finite[-1]] if finite else []


def _to_page(value: Value) -> Value:
    return INFINITE if value == float("inf") else value
