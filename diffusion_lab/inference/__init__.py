"""From a checkpoint to an ensemble forecast in physical units."""

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
