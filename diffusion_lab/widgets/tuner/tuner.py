"""The widget: controls, pictures and scoreboard around a session that samples on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from ipywidgets import HTML, HBox, VBox
from matplotlib.figure import Figure

from diffusion_lab.config import nearest
from diffusion_lab.inference import Forecaster
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.stores.store import Store
from diffusion_lab.widgets.chart_image import Pictured
from diffusion_lab.widgets.tuner import board
from diffusion_lab.widgets.tuner.controls import Controls
from diffusion_lab.widgets.tuner.export import export
from diffusion_lab.widgets.tuner.history import History
from diffusion_lab.widgets.tuner.pictures import Pictures
from diffusion_lab.widgets.tuner.result import Result
from diffusion_lab.widgets.tuner.session import Frame, Session
from diffusion_lab.widgets.tuner.setting import Setting, defaults_of, presets_of
from diffusion_lab.widgets.tuner.still import still
from diffusion_lab.widgets.tuner.toolbar import Toolbar
from diffusion_lab.widgets.worker import LatestOnly

_VIEW = ("variable", "lead", "member")


class SamplerTuner(Pictured, VBox):
    """A trained forecaster's sampler under your hands, in a notebook, as an app, or in a script.

    Every setting is sampled with the same noise, so what changes is what you changed. The first members are
    shown early, the others refine the picture; a newer setting ends an older one's run.

    Args:
        checkpoint: a released name, the path of your own, or a loaded forecaster, as of `from_anemoi`.
        device: "cpu", "cuda", …
        data: an open store, its path or name, to start forecasts from; None for the checkpoint's own.
        members_per_call: as of `Forecaster.forecast`, which with this number gives the same bits.
        compile: as of `load_forecaster`: on a GPU the first forecast takes long, later ones less.
        settings: first values of controls, such as `sigma_max=90.0`.

    Raises:
        FileNotFoundError, KeyError, ValueError: there is no such checkpoint; as `set`.
    """

    def __init__(
        self,
        checkpoint: str | Path | Forecaster = "example-tendency",
        device: str = "cpu",
        data: Store | str | Path | None = None,
        *,
        members_per_call: int | None = None,
        compile: bool = False,
        **settings: Any,
    ) -> None:
        self.session = Session(data, members_per_call, compile)
        if isinstance(checkpoint, Forecaster):
            checkpoint, device = self.session.adopt(checkpoint)
        forecaster = self.session.forecaster(str(checkpoint), device)
        first = Setting(str(checkpoint), device, self._a_date(forecaster), **defaults_of(forecaster))
        view = {name: settings.pop(name) for name in _VIEW if name in settings}
        first = self._checked(first.changed(**_with_date(settings)))
        self.history = History(first)
        self.pinned: dict[str, Result] = {}
        self.error: Exception | None = None
        self._current: Result | None = None
        self._asked: Setting | None = None
        self.sampling = LatestOnly(self.session.run, self._show_frame, self._fail, self._say_stopped)
        self.drawing = LatestOnly(self._draw_schedule, lambda nothing: None, self._fail)
        self.controls, self.pictures = Controls(self._moved), Pictures()
        self.toolbar = self._bar()
        super().__init__([HTML(board.STYLE), self.toolbar, self._body()])
        self.add_class("dl-tuner")
        self._connect()
        self._show_setting()
        for name, value in view.items():
            self._view(name, value)

    # What a script, a test or another cell does with it.

    @property
    def setting(self) -> Setting:
        """Where the controls stand."""
        return self.history.present

    def set(self, **values: Any) -> SamplerTuner:
        """Move controls, or choose the `variable`, `lead` and `member` that are shown.

        Sampling begins if the tuner is on display; `run` makes the forecast at once.

        Raises:
            KeyError: there is no such control.
            ValueError: a value out of range; the setting stays as it was.
        """
        view = {name: values.pop(name) for name in _VIEW if name in values}
        self._go(self.setting.changed(**_with_date(values)))
        for name, value in view.items():
            self._view(name, value)
        return self

    def run(self, timeout: float | None = None) -> xr.Dataset:
        """Make the forecast of the present setting, unless it is kept, and wait for it.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
            Exception: what went wrong in sampling.
        """
        if not (self.sampling.busy and self._asked == self.setting):
            self._sample()
        if not self.wait_idle(timeout):
            raise TimeoutError(f"the forecast is not ready after {timeout} s")
        if self.error is not None:
            raise self.error
        return self.result

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until all is sampled and drawn; False if that takes longer than `timeout` seconds."""
        return self.sampling.wait_idle(timeout) and self.drawing.wait_idle(timeout)

    def stop(self) -> None:
        """End the sampling at its next network call."""
        self.sampling.cancel()

    @property
    def result(self) -> xr.Dataset | None:
        """The finished forecast of the present setting, as `Forecaster.forecast` gives it; None before."""
        result = self.session.result(self.setting)
        return None if result is None else result.dataset

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the present setting for the shown variable and lead; empty before it is sampled."""
        result = self.session.result(self.setting)
        return {} if result is None else result.scores(self.pictures.variable.value, self.pictures.lead.value)

    def pin(self) -> str:
        """Keep the present forecast to compare with; returns its letter.

        Raises:
            ValueError: there is no finished forecast of this setting yet.
        """
        result = self.session.result(self.setting)
        if result is None:
            raise ValueError("there is nothing to pin before the forecast is ready")
        letter = next(chr(65 + i) for i in range(26) if chr(65 + i) not in self.pinned)
        self.pinned[letter] = result
        self.toolbar.pinned(self.pinned, letter)
        self._draw_all()
        return letter

    def unpin(self) -> None:
        """Forget what is pinned."""
        self.pinned.clear()
        self.toolbar.pinned([], None)
        self._draw_all()

    def undo(self) -> None:
        """Go back to the setting before."""
        self.history.undo()
        self._show_setting()
        self._sample_if_live()

    def redo(self) -> None:
        """Take the last `undo` back."""
        self.history.redo()
        self._show_setting()
        self._sample_if_live()

    def reset(self) -> None:
        """Go to the checkpoint's defaults."""
        self.preset("checkpoint's defaults")

    def preset(self, name: str) -> None:
        """Go to a preset of the sampling.

        Raises:
            KeyError: there is no such preset.
        """
        presets = presets_of(self.setting.checkpoint, self._forecaster)
        if name not in presets:
            raise KeyError(f"there is no preset {name!r}; there are {', '.join(presets)}")
        self._go(self.setting.changed(**presets[name]))

    def export(self, folder: str | Path = "tuned_sampler") -> list[Path]:
        """Write `predict_kwargs.yaml`, `forecast.py`, and `forecast.nc` if the forecast is ready."""
        return export(folder, self.setting, self.session)

    def figure(self) -> Figure:
        """Maps and charts of the present setting as one figure; before its forecast, the schedule."""
        result = self.session.result(self.setting)
        results = {} if result is None else {"now": result, **self.pinned}
        view = (getattr(self.pictures, name).value for name in _VIEW)
        return still(self._schedules(), results, *view)

    def summary(self) -> str:
        """The setting, in a line."""
        setting = self.setting
        groups = (setting.predict_kwargs[key] for key in ("sampler_params", "noise_scheduler_params"))
        options = ", ".join(f"{name}={value!r}" for group in groups for name, value in group.items())
        where = (
            f"{Path(setting.checkpoint).stem}, {setting.date}, {setting.steps} × {setting.members} members"
        )
        return f"SamplerTuner({where}: {options})"

    # What the page looks like.

    def _bar(self) -> Toolbar:
        actions = {
            "stop": self.stop,
            "undo": self.undo,
            "redo": self.redo,
            "reset": self.reset,
            "pin": self.pin,
            "unpin": self.unpin,
            "export": self._export_and_say,
        }
        return Toolbar(
            {name: partial(self._guard, act) for name, act in actions.items()},
            presets_of(self.setting.checkpoint, self._forecaster),
            lambda name: self._guard(lambda: self.preset(name)),
            lambda: self._guard(self._draw_board),
        )

    def _body(self) -> VBox:
        self.table = HTML()
        row = HBox([self.controls, self.pictures], layout={"align_items": "flex-start", "grid_gap": "12px"})
        return VBox([row, self.table])

    def _connect(self) -> None:
        for name in _VIEW:
            getattr(self.pictures, name).observe(lambda change: self._guard(self._draw_all), "value")
        self.pictures.at.observe(lambda change: self._guard(self._show_film), "value")
        self.pictures.canvases["truth"].observe(lambda change: self._guard(self._draw_all), "dark")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if self._asked is None:
            self._sample()
        return super()._repr_mimebundle_(include, exclude)

    # From a moved control to new pictures.

    @property
    def _forecaster(self) -> Forecaster:
        return self.session.forecaster(self.setting.checkpoint, self.setting.device)

    def _a_date(self, forecaster: Forecaster) -> str:
        store = self.session.store(forecaster)
        dates = forecast_starts(store, forecaster.step, forecaster.model.multistep_input, None)
        return str(dates[len(dates) * 3 // 4].astype("datetime64[h]"))

    def _guard(self, action: Callable[[], Any]) -> None:
        """Do what a hand asked for; an exception in a callback would be seen nowhere."""
        try:
            action()
        except Exception as error:
            self._fail(error)

    def _moved(self, values: dict[str, Any]) -> None:
        self._guard(lambda: self._go(self.setting.changed(**values), by_hand=True))

    def _go(self, setting: Setting, by_hand: bool = False) -> None:
        try:
            self._checked(setting)
        except Exception:
            if not by_hand:
                raise
            # A hand passes through what is out of range: the control stays where it is, and says so.
            self.history.go(setting, by_hand)
            self.sampling.cancel()
            raise
        self.history.go(setting, by_hand)
        self._show_setting()
        self._sample_if_live()

    def _checked(self, setting: Setting) -> Setting:
        """The setting, if it can be sampled; errors as `set`."""
        forecaster = self.session.forecaster(setting.checkpoint, setting.device)
        setting.check(forecaster)
        self.session.store(forecaster).index(setting.date)
        return setting

    def _sample_if_live(self) -> None:
        if self._asked is not None:
            self._sample()

    def _sample(self) -> None:
        self.error, self._asked = None, self.setting
        if self.session.compiles_first(self.setting):
            self.toolbar.say(board.note("compiling the network, which takes a while once …"), 0.0)
        self.sampling.submit(self.setting)

    def _show_setting(self) -> None:
        forecaster = self._forecaster
        self.controls.show(self.setting, forecaster, self.session.store(forecaster))
        self.pictures.offer(forecaster.variables.output, self.setting)
        self.pictures.place(self.session.place(self.setting))
        self.toolbar.offer(presets_of(self.setting.checkpoint, forecaster))
        self.toolbar.buttons["undo"].disabled = not self.history.can_undo
        self.toolbar.buttons["redo"].disabled = not self.history.can_redo
        self.drawing.submit(self.setting)

    def _schedules(self) -> dict[str, tuple[Setting, np.ndarray]]:
        settings = {"now": self.setting, **{name: pin.setting for name, pin in self.pinned.items()}}
        schedules = {}
        for name, setting in settings.items():
            forecaster = self.session.forecaster(setting.checkpoint, setting.device)
            levels = setting.sampling(forecaster).sigmas().numpy()
            schedules[name] = (setting, levels)
        return schedules

    def _draw_schedule(self, setting: Setting, check: Callable[[], None]) -> Any:
        del setting, check
        self.pictures.draw_schedule(self._schedules())
        return iter(())

    def _show_frame(self, frame: Frame) -> None:
        """On the sampling thread: what is new of a run."""
        setting = self._asked
        if frame.denoised is not None:
            forecaster = self.session.forecaster(setting.checkpoint, setting.device)
            variables, place = forecaster.variables.output, self.session.place(setting)
            shown = self.pictures.variable.value
            units = next(v.units for v in forecaster.release.variables if v.name == shown)
            self.toolbar.say(board.progress(frame, setting.steps), frame.share)
            self._playing = True
            self.pictures.show_truth(frame.truth, place, variables, units)
            self.pictures.show_frame(frame, place, variables, units)
            self._playing = False
        if frame.result is not None:
            self._current = frame.result
            self._draw_result()
        if frame.result is not None and frame.result.finished:
            self.pictures.rest(frame.result)
            again = "" if frame.seconds else " (kept)"
            calls = (
                f"{frame.calls} network calls"
                if frame.seconds
                else f"{frame.result.calls} calls a trajectory"
            )
            self.toolbar.say(board.note(f"ready{again}: {calls}, {frame.result.seconds:.1f} s"), 1.0)

    _playing = False

    def _draw_result(self) -> None:
        if self._current is not None:
            self.pictures.show(self._current)
            self.pictures.draw_scores(self._results())
            self._draw_board()

    def _draw_all(self) -> None:
        self.drawing.submit(self.setting)
        self._draw_result()
        self._show_film()

    def _results(self) -> dict[str, Result]:
        return {"now": self._current, **self.pinned}

    def _draw_board(self) -> None:
        if self._current is not None:
            view = self.pictures.variable.value, self.pictures.lead.value
            against, defaults = self.toolbar.reference.value, defaults_of(self._forecaster)
            self.table.value = board.scoreboard(self._results(), against, *view, defaults)

    def _show_film(self) -> None:
        if self._current is not None and not self._playing and not self.sampling.busy:
            self.pictures.show_film(self._current, self.pictures.at.value)

    def _view(self, name: str, value: Any) -> None:
        control = getattr(self.pictures, name)
        allowed = control.options if name == "variable" else range(control.min, control.max + 1)
        if value not in allowed:
            hint = nearest(str(value), control.options) if name == "variable" else f" of {list(allowed)}"
            raise ValueError(f"there is no {name} {value!r}{hint}")
        control.value = value

    def _export_and_say(self) -> None:
        files = self.export()
        names = ", ".join(path.name for path in files)
        self.toolbar.say(board.note(f"wrote {names} to {files[0].parent.resolve()}"))

    def _fail(self, error: Exception) -> None:
        self.error = error
        self.toolbar.say(board.fault(error), 0.0)

    def _say_stopped(self) -> None:
        if self.error is None:
            self.toolbar.say(board.note("stopped"), 0.0)


def _with_date(values: dict[str, Any]) -> dict[str, Any]:
    """A date in any of numpy's spellings as the controls spell it."""
    return values | {"date": str(np.datetime64(values["date"], "h"))} if "date" in values else values
