"""Stores in the layout of anemoi-datasets: reading, statistics, computed forcings, samples for training."""

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
