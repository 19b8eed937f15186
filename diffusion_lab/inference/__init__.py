"""From a checkpoint to an ensemble forecast in physical units.

Names are loaded when first used: what reads and writes files takes seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_lab.inference.anemoi import from_anemoi
    from diffusion_lab.inference.forecaster import Forecaster, load_forecaster
    from diffusion_lab.inference.output import write_forecast
    from diffusion_lab.inference.release import Release, load_release, save_release
    from diffusion_lab.inference.rollout import Rollout, SolverStep
    from diffusion_lab.sampling import SamplingSettings

__all__ = [
    "Forecaster",
    "Release",
    "Rollout",
    "SamplingSettings",
    "SolverStep",
    "from_anemoi",
    "load_forecaster",
    "load_release",
    "save_release",
    "write_forecast",
]
_MODULES = {
    "Forecaster": "inference.forecaster",
    "Release": "inference.release",
    "Rollout": "inference.rollout",
    "SamplingSettings": "sampling",
    "SolverStep": "inference.rollout",
    "from_anemoi": "inference.anemoi",
    "load_forecaster": "inference.forecaster",
    "load_release": "inference.release",
    "save_release": "inference.release",
    "write_forecast": "inference.output",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"diffusion_lab.{_MODULES[name]}"), name)
