"""Stores in the layout of anemoi-datasets: reading, statistics, computed forcings, samples for training.

Names are loaded when first used: the libraries behind a store take a second to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_lab.stores.forcings import compute_forcing
    from diffusion_lab.stores.store import Store, open_store

__all__ = ["Store", "compute_forcing", "open_store"]
_MODULES = {"Store": "store", "compute_forcing": "forcings", "open_store": "store"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
