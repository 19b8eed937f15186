"""Undo and redo for settings."""

from __future__ import annotations

import time

from diffusion_lab.widgets.tuner.setting import Setting

_ONE_DRAG = 1.0  # seconds without a move that end a drag


class History:
    """Settings in the order they were made; the moves of one drag count as one.

    Args:
        setting: the first.
    """

    def __init__(self, setting: Setting) -> None:
        self._past: list[Setting] = []
        self._future: list[Setting] = []
        self.present = setting
        self._moved: tuple[str, ...] = ()
        self._when = 0.0

    def go(self, setting: Setting, by_hand: bool = False) -> None:
        """Make a setting the present one; `by_hand` joins quick moves of one control."""
        if setting == self.present:
            return
        moved = tuple(setting.difference(self.present))
        now = time.monotonic()
        if not (by_hand and moved == self._moved and now - self._when < _ONE_DRAG):
            self._past.append(self.present)
        self._moved, self._when = (moved if by_hand else ()), now
        self.present = setting
        self._future.clear()

    def undo(self) -> Setting:
        """The setting before, if there is one."""
        if self._past:
            self._future.append(self.present)
            self.present = self._past.pop()
        self._moved = ()
        return self.present

    def redo(self) -> Setting:
        """The setting that was undone last, if there is one."""
        if self._future:
            self._past.append(self.present)
            self.present = self._future.pop()
        return self.present

    @property
    def can_undo(self) -> bool:
        """Whether there is a setting before."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is a setting after."""
        return bool(self._future)
