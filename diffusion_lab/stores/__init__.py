"""Stores in the layout of anemoi-datasets: reading, statistics, computed forcings, samples for training.

Names are loaded when first used: the libraries behind a store take a second to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_lab.stores.dates import lead_name, lead_timedelta
    from diffusion_lab.stores.forcings import COMPUTED_FORCINGS, CONSTANT_FORCINGS, compute_forcing
    from diffusion_lab.stores.statistics import Statistics
    from diffusion_lab.stores.store import Role, Store, open_store

__all__ = [
    "COMPUTED_FORCINGS",
    "CONSTANT_FORCINGS",
    "Role",
    "Statistics",
    "Store",
    "compute_forcing",
    "lead_name",
    "lead_timedelta",
    "open_store",
]
_MODULES = {
    "COMPUTED_FORCINGS": "forcings",
    "CONSTANT_FORCINGS": "forcings",
    "Role": "store",
    "Statistics": "statistics",
    "Store": "store",
    "compute_forcing": "forcings",
    "lead_name": "dates",
    "lead_timedelta": "dates",
    "open_store": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
