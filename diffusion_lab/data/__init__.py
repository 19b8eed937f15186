"""Stores in the layout of anemoi-datasets: reading, writing, recipes, computed forcings."""

from diffusion_lab.data.dates import lead_name, lead_timedelta
from diffusion_lab.data.forcings import COMPUTED_FORCINGS, CONSTANT_FORCINGS, compute_forcing
from diffusion_lab.data.statistics import Statistics
from diffusion_lab.data.store import Role, Store, open_store
from diffusion_lab.data.writer import StoreMetadata, StoreWriter, Variable, create_store

__all__ = [
    "COMPUTED_FORCINGS",
    "CONSTANT_FORCINGS",
    "Role",
    "Statistics",
    "Store",
    "StoreMetadata",
    "StoreWriter",
    "Variable",
    "compute_forcing",
    "create_store",
    "lead_name",
    "lead_timedelta",
    "open_store",
]
