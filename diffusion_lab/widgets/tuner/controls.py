"""The tuner's controls: one for each value of a `Setting`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from ipywidgets import HTML, Combobox, Dropdown, VBox, Widget

from diffusion_lab.assets import checkpoints
from diffusion_lab.inference import Forecaster
from diffusion_lab.samplers import SAMPLERS
from diffusion_lab.samplers.churn import GAMMA_MAX
from diffusion_lab.sampling import options_of
from diffusion_lab.schedules import SCHEDULES
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.stores.store import Store
from diffusion_lab.widgets.panel import LOOK, geometric
from diffusion_lab.widgets.slider import Slider
from diffusion_lab.widgets.tuner.setting import Setting, flat

_GROUPS = {
    "Forecast": ("checkpoint", "device", "date", "steps", "members", "seed"),
    "Noise schedule": ("schedule_type", "num_steps", "sigma_max", "sigma_min", "rho"),
    "Sampler": ("sampler", "S_churn", "S_min", "S_max", "S_noise", "noise_correlation"),
}
_NAMES = {
    "steps": "lead steps",
    "schedule_type": "schedule",
    "date": "start",
    "noise_correlation": "correlation",
}
_UNITS = {"steps": "lead steps", "members": "members", "num_steps": "solver steps"}
_HELP = {
    "checkpoint": "a released name, or the path of your own .safetensors file",
    "device": "where the network computes",
    "date": "start of the forecast, UTC",
    "steps": "forecast steps, each fed with the one before",
    "members": "of the ensemble",
    "seed": "of the noise, which is the same for every setting: what changes is what you changed",
    "schedule_type": "how the noise levels are spaced",
    "num_steps": "solver steps N",
    "sigma_max": "the first noise level σ, in units of the normalised data",
    "sigma_min": "the last noise level above zero",
    "rho": "curvature of the Karras schedule: large values spend more steps at small σ",
    "sampler": "how the steps from level to level are taken",
    "S_churn": "noise added before each step; it acts up to (√2 − 1)·N, where the slider ends",
    "S_min": "lowest noise level that is churned",
    "S_max": "highest noise level that is churned",
    "S_noise": "standard deviation of the added noise; above 1 makes up for lost detail",
    "noise_correlation": "of a member's noise with that of the forecast step before: spread grows faster",
}
_STOPS: dict[str, list[Any]] = {
    "date": ["–"],
    "steps": [*range(1, 11), 15, 20],
    "members": [1, 2, 4, 6, 8, 12, 16, 24, 32, 50],
    "num_steps": [*range(2, 31), 35, 40, 50, 60, 80, 100],
    "sigma_max": geometric(1.0, 1000.0),
    "sigma_min": geometric(0.001, 0.5),
    "rho": [*np.arange(1, 10.5, 0.5).tolist(), 12.0, 15.0, 20.0],
    "S_churn": [0.0],
    "S_min": [0.0, *geometric(0.01, 10.0, 10)],
    "S_max": [*geometric(0.1, 1000.0, 10), float("inf")],
    "S_noise": [*np.arange(0.9, 1.105, 0.01).round(2).tolist()],
    "noise_correlation": np.arange(0, 1, 0.05).round(2).tolist(),
}


class Controls(VBox):
    """A column of controls.

    Args:
        changed: called with `{name: value}` and whether the hand is still moving.
    """

    def __init__(self, changed: Callable[[dict[str, Any], bool], None]) -> None:
        self._changed = changed
        self._shown: Setting | None = None
        # "manual" has no levels that a slider could set.
        schedules = [name for name in SCHEDULES if name != "manual"]
        devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        words: dict[str, Combobox | Dropdown] = {
            "checkpoint": Combobox(
                options=list(checkpoints()), continuous_update=False, placeholder="name or path", **LOOK
            ),
            "device": Dropdown(options=devices, **LOOK),
            "schedule_type": Dropdown(options=schedules, **LOOK),
            "sampler": Dropdown(options=list(SAMPLERS), **LOOK),
        }
        self.widgets: dict[str, Slider | Combobox | Dropdown] = {}
        for name in (name for names in _GROUPS.values() for name in names):
            if name in words:
                self.widgets[name] = words[name]
                words[name].description, words[name].tooltip = _NAMES.get(name, name), _HELP[name]
                words[name].observe(lambda change, name=name: self._chosen(name, change["new"]), "value")
            else:
                self.widgets[name] = self._slider(name)
            self.widgets[name].add_class(f"dl-{name}")
        self.saturation = HTML()
        rows: list[Widget] = []
        for title, names in _GROUPS.items():
            rows += [HTML(f"<div class='dl-group'>{title}</div>"), *(self.widgets[name] for name in names)]
        rows.insert(rows.index(self.widgets["S_churn"]) + 1, self.saturation)
        super().__init__(rows, layout={"width": "314px", "max_width": "100%", "flex": "0 0 auto"})

    def _slider(self, name: str) -> Slider:
        limits = (0, 2**31 - 1) if name == "seed" else None
        stops = _STOPS.get(name, [])
        slider = Slider(
            _NAMES.get(name, name),
            stops,
            stops[0] if stops else 0,
            help=_HELP[name],
            unit=_UNITS.get(name, ""),
            limits=limits,
        )
        slider.on_hand(lambda value, moving: self._changed({name: value}, moving))
        return slider

    def show(self, setting: Setting, forecaster: Forecaster, store: Store) -> None:
        """Move the controls to a setting; what it does not use is greyed."""
        if self._shown is None or self._shown.checkpoint != setting.checkpoint:
            dates = forecast_starts(store, forecaster.step, forecaster.model.multistep_input, None)
            self._restrict("date", [str(date.astype("datetime64[h]")) for date in dates])
        self._restrict("S_churn", churn_stops(setting.num_steps))
        self._shown = setting
        for name, value in asdict(setting).items():
            widget = self.widgets[name]
            if isinstance(widget, Dropdown) and value not in widget.options:
                widget.options = (*widget.options, value)
            if widget.value != value:
                widget.value = value
        self._grey(setting)

    def _restrict(self, name: str, stops: list[Any]) -> None:
        slider = self.widgets[name]
        assert isinstance(slider, Slider)
        slider.restrict(stops)

    def _grey(self, setting: Setting) -> None:
        used = flat(setting.predict_kwargs)
        for name in ("rho", "S_churn", "S_min", "S_max", "S_noise"):
            self.widgets[name].disabled = name not in used
        self.widgets["noise_correlation"].disabled = setting.steps == 1  # there is no step before
        taken = "S_churn" in options_of(SAMPLERS[setting.sampler])
        limit = GAMMA_MAX * setting.num_steps
        note = (
            f"saturates at (√2 − 1)·{setting.num_steps} = {limit:.3g}"
            if taken
            else "this sampler takes no churn"
        )
        self.saturation.value = f"<div class='dl-note'>{note}</div>"

    def _chosen(self, name: str, value: str) -> None:
        if self._shown is not None and value != getattr(self._shown, name):
            self._changed({name: value}, False)


def churn_stops(num_steps: int) -> list[float]:
    """Values of S_churn up to where it saturates, (√2 − 1)·N."""
    limit = GAMMA_MAX * num_steps
    step = next(s for s in (0.05, 0.1, 0.25, 0.5, 1.0) if limit / s <= 60)
    return [*np.arange(0, limit - step / 4, step).round(2).tolist(), round(limit, 4)]
