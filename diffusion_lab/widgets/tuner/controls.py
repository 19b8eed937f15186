"""The tuner's controls: one for each value of a `Setting`, over explicit values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from ipywidgets import HTML, BoundedIntText, Combobox, Dropdown, SelectionSlider, ValueWidget, VBox

from diffusion_lab.assets import checkpoints
from diffusion_lab.inference import Forecaster
from diffusion_lab.samplers import SAMPLERS
from diffusion_lab.samplers.churn import GAMMA_MAX
from diffusion_lab.sampling import options_of
from diffusion_lab.schedules import SCHEDULES
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.stores.store import Store
from diffusion_lab.widgets.panel import geometric
from diffusion_lab.widgets.tuner.setting import Setting, flat

_WIDTH = {"layout": {"width": "304px"}, "style": {"description_width": "82px"}}
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
_HELP = {
    "checkpoint": "a released name, or the path of your own .safetensors file",
    "steps": "forecast steps, each fed with the one before",
    "seed": "of the noise: the same noise for every setting, so what changes is what you changed",
    "num_steps": "solver steps N",
    "sigma_max": "the first noise level σ, in units of the normalised data",
    "sigma_min": "the last noise level above zero",
    "rho": "curvature of the Karras schedule: large values spend the steps at small σ",
    "S_churn": "noise added on the way; it acts up to (√2 − 1)·N, where the slider ends",
    "S_min": "lowest noise level that is churned",
    "S_max": "highest noise level that is churned",
    "S_noise": "standard deviation of the added noise; above 1 makes up for detail lost",
    "noise_correlation": "of a member's noise with that of the step before: makes the spread grow faster",
}


class Controls(VBox):
    """A column of controls.

    Args:
        changed: called with `{name: value}` when a hand has moved a control, on whatever thread.
    """

    def __init__(self, changed: Callable[[dict[str, Any]], None]) -> None:
        self._changed, self._showing = changed, False
        self._shown: Setting | None = None
        # "manual" has no levels to set by slider.
        schedules = [name for name in SCHEDULES if name != "manual"]
        devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        self.widgets: dict[str, ValueWidget] = {
            "checkpoint": Combobox(
                options=list(checkpoints()), continuous_update=False, placeholder="name or path", **_WIDTH
            ),
            "device": Dropdown(options=devices, **_WIDTH),
            "date": SelectionSlider(options=["–"], **_WIDTH),
            "steps": _slider([*range(1, 11), 15, 20]),
            "members": _slider([1, 2, 4, 6, 8, 12, 16, 24, 32, 50]),
            "seed": BoundedIntText(min=0, max=2**31 - 1, **_WIDTH),
            "schedule_type": Dropdown(options=schedules, **_WIDTH),
            "num_steps": _slider([*range(2, 31), 35, 40, 50, 60, 80, 100]),
            "sigma_max": _slider(geometric(1.0, 1000.0)),
            "sigma_min": _slider(geometric(0.001, 0.5)),
            "rho": _slider([*np.arange(1, 10.5, 0.5).tolist(), 12.0, 15.0, 20.0]),
            "sampler": Dropdown(options=list(SAMPLERS), **_WIDTH),
            "S_churn": _slider(churn_values(20)),
            "S_min": _slider([0.0, *geometric(0.01, 10.0, 10)]),
            "S_max": _slider([*geometric(0.1, 1000.0, 10), float("inf")]),
            "S_noise": _slider([*np.arange(0.9, 1.1, 0.01).round(2).tolist(), 1.003, 1.1]),
            "noise_correlation": _slider(np.arange(0, 1, 0.05).round(2).tolist()),
        }
        for name, widget in self.widgets.items():
            widget.description = _NAMES.get(name, name)
            widget.tooltip = _HELP.get(name, "")
            widget.add_class(f"dl-{name}")
            widget.observe(lambda change, name=name: self._moved(name, change["new"]), "value")
        self.saturation = HTML()
        rows = []
        for title, names in _GROUPS.items():
            rows += [HTML(f"<div class='dl-group'>{title}</div>"), *(self.widgets[name] for name in names)]
        rows.insert(rows.index(self.widgets["S_churn"]) + 1, self.saturation)
        super().__init__(rows, layout={"width": "314px", "flex": "0 0 auto", "overflow": "visible"})

    def show(self, setting: Setting, forecaster: Forecaster, store: Store) -> None:
        """Move the controls to a setting; what it does not use is greyed."""
        anew = self._shown is None or self._shown.checkpoint != setting.checkpoint
        # A slider whose values change goes through its first one; that is nobody's hand.
        self._shown, self._showing = setting, True
        try:
            if anew:
                dates = forecast_starts(store, forecaster.step, forecaster.model.multistep_input, None)
                self.widgets["date"].options = [_date(date) for date in dates]
            churn, most = self.widgets["S_churn"], {*churn_values(setting.num_steps), setting.S_churn}
            if {value for _, value in churn.options} != most:
                churn.options = _options(most)
            for name, value in asdict(setting).items():
                _put(self.widgets[name], value)
            self._grey(setting)
        finally:
            self._showing = False

    def _grey(self, setting: Setting) -> None:
        used = flat(setting.predict_kwargs)
        for name in ("rho", "S_churn", "S_min", "S_max", "S_noise"):
            self.widgets[name].disabled = name not in used
        limit = GAMMA_MAX * setting.num_steps
        taken = "S_churn" in options_of(SAMPLERS[setting.sampler])
        says = f"churn saturates at (√2 − 1)·{setting.num_steps} = {limit:.3g}" if taken else "no churn here"
        self.saturation.value = f"<div class='dl-note'>{says}</div>"

    def _moved(self, name: str, value: Any) -> None:
        # A browser may send a value when it draws the control.
        if self._shown is not None and not self._showing and value != getattr(self._shown, name):
            self._changed({name: value})


def churn_values(num_steps: int) -> list[float]:
    """Values of S_churn up to where it saturates, (√2 − 1)·N."""
    limit = GAMMA_MAX * num_steps
    step = next(s for s in (0.05, 0.1, 0.25, 0.5, 1.0) if limit / s <= 60)
    return [*np.arange(0, limit - step / 4, step).round(2).tolist(), round(limit, 4)]


def _slider(values: list[float]) -> SelectionSlider:
    options = _options(set(values))
    return SelectionSlider(options=options, **_WIDTH)


def _options(values: set[float]) -> list[tuple[str, float]]:
    return [("∞" if value == float("inf") else f"{value:.4g}", value) for value in sorted(values)]


def _put(widget: ValueWidget, value: Any) -> None:
    """Show a value; one that a slider or menu lacks is added to it."""
    if isinstance(widget, SelectionSlider | Dropdown):
        known = [option[1] if isinstance(option, tuple) else option for option in widget.options]
        if value not in known:
            words = isinstance(value, str)
            widget.options = sorted({*known, value}) if words else _options({*known, value})
    if widget.value != value:
        widget.value = value


def _date(date: np.datetime64) -> str:
    return str(date.astype("datetime64[h]"))
