"""The tuner's buttons, and the line below them that says how far a run is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ipywidgets import HTML, Button, Dropdown, FloatProgress, HBox, VBox

_ALIGNED = {"align_items": "center", "flex_flow": "row wrap"}


class Toolbar(VBox):
    """Buttons, the menus of presets and of pinned settings, progress and status.

    Args:
        actions: what the buttons do, by the keys of `buttons`.
        presets: names of presets.
        choose: called with the name of the chosen preset.
        compare: called when another pinned setting is chosen as the reference.

    Attributes:
        buttons: by name: stop, undo, redo, reset, pin, unpin, export.
        presets: the menu of presets; it springs back to its title.
        reference: the menu of pinned settings.
        progress: 0 … 1.
        status: one line of HTML.
    """

    def __init__(
        self,
        actions: dict[str, Callable[[], Any]],
        presets: Iterable[str],
        choose: Callable[[str], Any],
        compare: Callable[[], Any],
    ) -> None:
        looks = {
            "stop": ("end the sampling at the next network call", "stop"),
            "undo": ("the setting before", "undo"),
            "redo": ("take the undo back", "repeat"),
            "reset": ("the checkpoint's defaults", "home"),
            "pin": ("keep this setting to compare with", "thumb-tack"),
            "unpin": ("forget what is pinned", "times"),
            "export": ("write YAML, Python and netCDF files", "download"),
        }
        self.buttons = {
            name: _button(name, *look, act)
            for (name, look), act in zip(looks.items(), map(actions.__getitem__, looks), strict=True)
        }
        self.presets = Dropdown(
            options=self._with_title(presets), tooltip="settings to start from", layout={"width": "160px"}
        )
        self.reference = Dropdown(
            description="against",
            tooltip="the pinned setting that changes are told against",
            layout={"width": "110px"},
            style={"description_width": "50px"},
        )
        self.progress = FloatProgress(max=1.0, layout={"width": "150px"})
        self.status = HTML(layout={"flex": "1 1 260px", "min_width": "200px"})
        self._choose = choose
        self.presets.observe(self._chosen, "value")
        self.reference.observe(lambda change: compare(), "value")
        stop, undo, redo, reset, pin, unpin, export = self.buttons.values()
        upper = [stop, undo, redo, reset, self.presets, pin, unpin, self.reference, export]
        super().__init__(
            [
                HBox(upper, layout=_ALIGNED),
                HBox([self.progress, self.status], layout={"align_items": "center"}),
            ]
        )

    def offer(self, presets: Iterable[str]) -> None:
        """Put these presets into the menu."""
        options = self._with_title(presets)
        if self.presets.options != options:
            self.presets.options, self.presets.index = options, 0

    @staticmethod
    def _with_title(presets: Iterable[str]) -> tuple[str, ...]:
        """An empty menu that is filled later shows nothing, so the title comes first."""
        return ("presets …", *presets)

    def pinned(self, letters: Iterable[str], chosen: str | None) -> None:
        """Put pinned settings into the menu of references."""
        self.reference.options = list(letters)
        self.reference.value = chosen

    def say(self, line: str, share: float | None = None) -> None:
        """Show a line of HTML, and how much is done."""
        if share is not None:
            self.progress.value = share
        self.status.value = line

    def _chosen(self, change: object) -> None:
        if self.presets.index:
            name, self.presets.index = self.presets.value, 0
            self._choose(name)


def _button(name: str, tooltip: str, icon: str, act: Callable[[], Any]) -> Button:
    button = Button(description=name.capitalize(), tooltip=tooltip, icon=icon, layout={"width": "auto"})
    button.on_click(lambda _: act())
    return button
