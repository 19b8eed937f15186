"""The tuner's buttons, and the status below them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ipywidgets import Button, Dropdown, HBox, VBox

from diffusion_lab.widgets.tuner.status import Status


class Toolbar(VBox):
    """Buttons, the menus of presets and of pinned settings, progress and status.

    Args:
        actions: what the buttons do, in their order.
        presets: names of presets.
        choose: called with the name of the chosen preset.
        compare: called when another pinned setting is chosen as the reference.

    Attributes:
        buttons: by name: stop, undo, redo, reset, pin, unpin, export.
        presets: the menu of presets; it springs back to its title.
        reference: the menu of pinned settings.
        status: how far a run is, and what was refused.
    """

    def __init__(
        self,
        actions: Sequence[Callable[[], Any]],
        presets: Iterable[str],
        choose: Callable[[str], Any],
        compare: Callable[[], Any],
    ) -> None:
        tooltips = {
            "stop": "end the sampling at the next network call",
            "undo": "the setting before",
            "redo": "take the undo back",
            "reset": "the checkpoint's defaults",
            "pin": "keep this setting to compare with",
            "unpin": "forget what is pinned",
            "export": "write YAML, Python and netCDF files",
        }
        self.buttons = {
            name: _button(name, tooltip, act)
            for (name, tooltip), act in zip(tooltips.items(), actions, strict=True)
        }
        self.presets = Dropdown(
            options=self._with_title(presets),
            description="preset",
            tooltip="settings to start from",
            layout={"width": "210px"},
            style={"description_width": "48px"},
        )
        self.reference = Dropdown(
            description="against",
            options=[("–", "")],
            tooltip="the pinned setting to compare with",
            layout={"width": "110px"},
            style={"description_width": "50px"},
        )
        self.status = Status()
        self._choose = choose
        self.presets.observe(self._chosen, "value")
        self.reference.observe(lambda change: compare(), "value")
        stop, undo, redo, reset, pin, unpin, export = self.buttons.values()
        upper = [stop, undo, redo, reset, self.presets, pin, unpin, self.reference, export]
        super().__init__(
            [HBox(upper, layout={"align_items": "center", "flex_flow": "row wrap"}), self.status]
        )

    def offer(self, presets: Iterable[str]) -> None:
        """Put these presets into the menu."""
        options = self._with_title(presets)
        if self.presets.options != options:
            self.presets.options, self.presets.index = options, 0

    @staticmethod
    def _with_title(presets: Iterable[str]) -> tuple[str, ...]:
        """A first line for the menu to rest at."""
        return ("choose …", *presets)

    def pinned(self, letters: Iterable[str], chosen: str) -> None:
        """Put pinned settings into the menu of references."""
        self.reference.options = [(letter, letter) for letter in letters] or [("–", "")]
        self.reference.value = chosen

    def say(self, text: str, share: float | None = None) -> None:
        """Show a line of text, and how much is done."""
        with self.status.hold_sync():
            if share is not None:
                self.status.share = share
            self.status.text = text

    def _chosen(self, change: object) -> None:
        if self.presets.index:
            name, self.presets.index = self.presets.value, 0
            self._choose(name)


def _button(name: str, tooltip: str, act: Callable[[], Any]) -> Button:
    button = Button(description=name.capitalize(), tooltip=tooltip, layout={"width": "auto"})
    button.on_click(lambda _: act())
    return button
