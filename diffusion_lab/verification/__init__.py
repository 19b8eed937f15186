"""Scores of ensemble forecasts.

`verification.ensemble` has the fast scores on torch tensors; what is named here works on labelled forecasts
and is loaded when first used, since the libraries behind it take seconds to import.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "by_lead_time": "layout",
    "case_means": "forecasts",
    "fields_like": "layout",
    "summarise": "summary",
    "PowerSpectrum": "spectra",
    "baselines_of": "baselines",
    "truth_of": "baselines",
    "deterministic_forecast": "protocol",
    "forecast_ensembles": "protocol",
    "run_protocol": "protocol",
    "score": "protocol",
    "format_lead_time": "tables",
    "markdown_table": "tables",
    "score_table": "tables",
    "shown_leads": "tables",
    "search_sampler": "search",
    "SearchSpace": "search",
    "SettingScorer": "search",
    "compare_scores": "search",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
