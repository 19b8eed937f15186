"""Where commands print tables."""

from __future__ import annotations

from rich.console import Console


def console(quiet: bool = False) -> Console:
    """The terminal; or a file or a pipe, which has no width, so that no table is cut."""
    out = Console(quiet=quiet, highlight=False)
    return out if out.is_terminal else Console(quiet=quiet, highlight=False, width=10_000)
