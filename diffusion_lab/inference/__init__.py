"""From a checkpoint to an ensemble forecast in physical units.

Names are imported on first use: the libraries that read and write files take seconds to import.
"""

from typing import TYPE_CHECKING

from diffusion_lab import import_lazily

if TYPE_CHECKING:
    from diffusion_lab.inference.anemoi import from_anemoi  # noqa: F401
    from diffusion_lab.inference.forecaster import Forecaster, load_forecaster  # noqa: F401
    from diffusion_lab.inference.output import write_forecast  # noqa: F401
    from diffusion_lab.inference.release import Release, load_release, save_release  # noqa: F401
    from diffusion_lab.inference.rollout import Rollout, SolverStep  # noqa: F401
    from diffusion_lab.sampling import SamplingSettings  # noqa: F401

__all__, __getattr__ = import_lazily(
    __name__,
    {
        "anemoi": "from_anemoi",
        "forecaster": "Forecaster SamplingSettings load_forecaster",
        "output": "write_forecast",
        "release": "Release load_release save_release",
        "rollout": "Rollout SolverStep",
    },
)
