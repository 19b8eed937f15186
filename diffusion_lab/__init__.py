"""Diffusion-based probabilistic weather forecasting on graphs, notebook first."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def import_lazily(package: str, modules: dict[str, str]) -> tuple[list[str], Callable[[str], Any]]:
    """`__all__` and `__getattr__` of a package whose names are imported on first use.

    Args:
        package: its name.
        modules: for each of its modules the names taken from it, separated by spaces.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def getter(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return list(home), getter
