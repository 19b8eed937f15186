"""Widgets for notebooks: `SamplerTuner`, and smaller ones that each show one idea.

Each is one object with and without a browser: `set(...)` moves its controls, `figure()` draws it. Classes are
loaded when first used.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "DenoiserProbe": "denoiser_probe",
    "SamplerTuner": "tuner",
    "Sampling1D": "sampling_1d",
    "ScheduleExplorer": "schedule_explorer",
    "TrainingMonitor": "training_monitor",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
