"""Pictures: one function each, which takes an Axes and data; `forecast_panel` composes a Figure.

Functions are loaded when first used: Matplotlib takes a second to import. None touches pyplot's state.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "field_map": "maps",
    "forecast_panel": "forecasts",
    "graph_on_globe": "graph",
    "nearest_cell": "forecasts",
    "noise_schedule": "training",
    "optimisation_history": "search",
    "paired_differences": "search",
    "parameter_importance": "search",
    "pareto_front": "search",
    "plume": "forecasts",
    "rank_histogram": "scores",
    "reliability": "scores",
    "roc": "scores",
    "score_vs_lead": "scores",
    "scorecard": "scores",
    "spectra": "scores",
    "spectra_ratio": "scores",
    "spread_skill": "scores",
    "training_curves": "training",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
