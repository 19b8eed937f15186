"""The widget: controls, pictures and scoreboard around a session that samples on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from ipywidgets import Box, VBox
from matplotlib.figure import Figure

from diffusion_lab.assets import checkpoints
from diffusion_lab.inference import Forecaster
from diffusion_lab.spelling import nearest
from diffusion_lab.stores.store import Store
from diffusion_lab.widgets.chart_image import Pictured
from diffusion_lab.widgets.tuner import board
from diffusion_lab.widgets.tuner.controls import Controls
from diffusion_lab.widgets.tuner.export import export
from diffusion_lab.widgets.tuner.history import History
from diffusion_lab.widgets.tuner.pictures import Pictures
from diffusion_lab.widgets.tuner.result import Result, units_of
from diffusion_lab.widgets.tuner.session import Frame, Session
from diffusion_lab.widgets.tuner.setting import Setting, date_to_begin_with, defaults_of, presets_of
from diffusion_lab.widgets.tuner.still import still
from diffusion_lab.widgets.tuner.toolbar import Toolbar
from diffusion_lab.widgets.worker import LatestOnly

_VIEW = ("variable", "lead", "member")
PATIENCE = 2.0  # seconds that a moving hand's next setting waits for the first members of the one before


class SamplerTuner(Pictured, VBox):
    """A trained forecaster's sampler under your hands, in a notebook, as an app, or in a script.

    Every setting is sampled with the same noise, so what changes is what you changed. The first members are
    shown early, the others refine the picture; a newer setting ends the run of an older one. What the page
    says is what runs: a value that cannot be sampled is refused, and its control goes back.

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
        date = date_to_begin_with(forecaster, self.session.store(forecaster))
        first = Setting(str(checkpoint), device, date, **defaults_of(forecaster))
        view = {name: settings.pop(name) for name in _VIEW if name in settings}
        first = self._checked(first.changed(**settings))
        self.history = History(first)
        self.pinned: dict[str, Result] = {}
        self.error: Exception | None = None
        self._current: Result | None = None
        self._asked: tuple[Setting, int] | None = None
        self.sampling: LatestOnly[tuple[Setting, int], Frame] = LatestOnly(
            lambda asked, check: self.session.run(asked[0], check, asked[1]),
            self._show_frame,
            self._fail,
            self._say_stopped,
            vital=lambda frame: frame.result is not None,
        )
        self.drawing: LatestOnly[Setting, Setting] = LatestOnly(
            lambda setting, check: iter([setting]),
            lambda setting: self.pictures.draw_schedule(self._schedules()),
            self._fail,
        )
        self.controls, self.pictures = Controls(self._moved), Pictures()
        self.table, self.toolbar = self.pictures.table, self._bar()
        super().__init__([self.toolbar, Box([self.controls, self.pictures])])
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

        If the tuner is on display, sampling begins; `run` makes the forecast in any case.

        Raises:
            KeyError: there is no such control.
            ValueError: a value out of range; the setting stays as it was.
        """
        view = {name: values.pop(name) for name in _VIEW if name in values}
        self._go(self.setting.changed(**values))
        for name, value in view.items():
            self._view(name, value)
        return self

    def run(self, timeout: float | None = None) -> xr.Dataset:
        """Make the forecast of the present setting, unless it is kept, and wait for it.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
            RuntimeError: it was stopped, or another setting was chosen meanwhile.
            Exception: what went wrong in sampling.
        """
        if not (self.sampling.busy and self._asked == (self.setting, self.pictures.member.value)):
            self._sample()
        if not self.wait_idle(timeout):
            raise TimeoutError(f"the forecast is not ready after {timeout} s")
        if self.error is not None:
            raise self.error
        result = self.result
        if result is None:
            raise RuntimeError("the forecast was stopped before it was ready; run() makes it again")
        return result

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until all is sampled and drawn; False if that takes longer than `timeout` seconds."""
        return self.sampling.wait_idle(timeout) and self.drawing.wait_idle(timeout)

    def stop(self) -> None:
        """End the run at its next network call."""
        self.sampling.cancel()

    @property
    def result(self) -> xr.Dataset | None:
        """The present setting's, as of `Forecaster.forecast`; None until `run`, or a page, has made it."""
        result = self.session.result(self.setting)
        return None if result is None else result.dataset

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the present setting for what is shown; empty until its forecast is ready."""
        result = self.session.result(self.setting)
        return {} if result is None else result.scores(self.pictures.variable.value, self.pictures.lead.value)

    def pin(self) -> str:
        """Keep the present forecast to compare with; returns its letter.

        Raises:
            ValueError: there is no finished forecast of this setting yet, or 26 are pinned.
        """
        result = self.session.result(self.setting)
        if result is None:
            raise ValueError("there is nothing to pin before the forecast is ready")
        if len(self.pinned) == 26:
            raise ValueError("26 settings are pinned, all letters; unpin them first")
        letter = chr(65 + len(self.pinned))
        self.pinned[letter] = result
        self.toolbar.pinned(self.pinned, letter)
        self._draw_all()
        return letter

    def unpin(self) -> None:
        """Forget what is pinned."""
        self.pinned.clear()
        self.toolbar.pinned([], "")
        self._draw_all()

    def undo(self) -> None:
        """Go back to the setting before."""
        self.history.undo()
        self._arrive()

    def redo(self) -> None:
        """Take the last `undo` back."""
        self.history.redo()
        self._arrive()

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
        return still(self._schedules(), results, self.toolbar.reference.value, *view)

    def summary(self) -> str:
        """The setting, in a line."""
        return f"SamplerTuner({self.setting.summary()})"

    # What the page looks like.

    def _bar(self) -> Toolbar:
        acts = [self.stop, self.undo, self.redo, self.reset, self.pin, self.unpin, self._export_and_say]
        return Toolbar(
            [partial(self._guard, act) for act in acts],
            presets_of(self.setting.checkpoint, self._forecaster),
            lambda name: self._guard(lambda: self.preset(name)),
            lambda: self._guard(self._draw_result),
        )

    def _connect(self) -> None:
        for name in _VIEW:
            getattr(self.pictures, name).observe(lambda change: self._guard(self._draw_all), "value")
        self.pictures.member.observe(lambda change: self._guard(self._watch), "value")
        self.pictures.at.on_hand(lambda step, moving: self._guard(self._show_film))
        self.pictures.canvases["truth"].observe(lambda change: self._guard(self._draw_all), "dark")
        self.toolbar.status.observe(lambda change: self._left(change["new"]), "views")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if self._asked is None:
            self._sample()
        return super()._repr_mimebundle_(include, exclude)

    # From a moved control to new pictures.

    @property
    def _forecaster(self) -> Forecaster:
        return self.session.forecaster(self.setting.checkpoint, self.setting.device)

    def _guard(self, action: Callable[[], Any]) -> None:
        """Do what a hand asked for; what is refused is told, and the controls go back to what runs."""
        try:
            action()
        except Exception as error:  # in a callback it would be seen nowhere
            self._show_setting()
            self.toolbar.status.fault = board.fault(error)

    def _moved(self, values: dict[str, Any], moving: bool) -> None:
        self._guard(lambda: self._go(self.setting.changed(**values), True, moving))

    def _go(self, setting: Setting, by_hand: bool = False, moving: bool = False) -> None:
        self.history.go(self._checked(setting), by_hand)
        self._arrive(moving)

    def _arrive(self, moving: bool = False) -> None:
        """Show where the history stands, and sample it if anybody looks."""
        self.toolbar.status.fault = ""
        self._show_setting()
        if self._asked is not None:
            self._sample(moving)

    def _checked(self, setting: Setting) -> Setting:
        """The setting, if it can be sampled; errors as `set`."""
        try:
            forecaster = self.session.forecaster(setting.checkpoint, setting.device)
        except FileNotFoundError:
            name, known = setting.checkpoint, checkpoints()
            raise FileNotFoundError(f"there is no checkpoint {name!r}{nearest(name, known)}") from None
        setting.check(forecaster)
        self.session.store(forecaster).index(np.datetime64(setting.date, "s"))
        return setting

    def _sample(self, moving: bool = False) -> None:
        self.error, self._asked = None, (self.setting, self.pictures.member.value)
        if self.session.compiles_first(self.setting):
            self.toolbar.say("compiling the network, which takes a while once …", 0.0)
        # While a hand moves, the first members of a setting on its way are drawn before the next one's begin.
        self.sampling.submit(self._asked, PATIENCE if moving else 0.0)

    def _watch(self) -> None:
        """Follow the member that was chosen; of a kept forecast, its film may have to be made."""
        if self._asked is not None and self.pictures.member.value != self._asked[1]:
            self._sample()

    def _left(self, views: int) -> None:
        """End the run and free memory once no page shows the tuner, as when its cell runs again."""
        if views and self._asked is None:
            self._sample()
        elif not views:
            self.sampling.cancel()
            self._asked = self._current = None
            self.session.forget()

    def _show_setting(self) -> None:
        forecaster = self._forecaster
        self.controls.show(self.setting, forecaster, self.session.store(forecaster))
        self.pictures.offer(forecaster.variables.output, self.setting)
        self.pictures.place(self.session.place(self.setting))
        self.toolbar.offer(presets_of(self.setting.checkpoint, forecaster))
        self.toolbar.buttons["undo"].disabled = not self.history.can_undo
        self.toolbar.buttons["redo"].disabled = not self.history.can_redo
        self.drawing.submit(self.setting)
        if self._current is None:
            self._draw_board()

    def _schedules(self) -> dict[str, tuple[Setting, np.ndarray]]:
        shown = [("now", self.setting, self._forecaster)]
        shown += [(name, pin.setting, pin.forecaster) for name, pin in self.pinned.items()]
        return {name: (setting, setting.sampling(by).sigmas().numpy()) for name, setting, by in shown}

    def _show_frame(self, frame: Frame) -> None:
        """On the sampling thread: what is new of a run."""
        setting = frame.setting
        if frame.denoised is not None:
            forecaster = self.session.forecaster(setting.checkpoint, setting.device)
            variables, place = forecaster.variables.output, self.session.place(setting)
            units = units_of(forecaster, self.pictures.variable.value)
            self.toolbar.say(board.progress(frame), frame.share)
            self.pictures.show_truth(frame.truth, place, variables, units)
            self.pictures.show_frame(frame, place, variables, units)
        if frame.result is None:
            return
        self._current = frame.result
        self._draw_result()
        if frame.result.finished:
            self.pictures.rest(frame.result)
            calls = "network calls" if frame.seconds else "calls a trajectory (kept)"
            self.toolbar.say(f"ready: {frame.calls} {calls}, {frame.result.seconds:.1f} s", 1.0)

    def _draw_result(self) -> None:
        if self._current is not None:
            self.pictures.show(self._current, self.pinned, self.toolbar.reference.value)
        self.pictures.draw_scores(self._results())
        self._draw_board()

    def _draw_all(self) -> None:
        self.drawing.submit(self.setting)
        self._draw_result()
        self._show_film()

    def _results(self) -> dict[str, Result]:
        if self._current is None:
            return {}
        name = "now" if self._is_current() else "before"
        return {name: self._current, **self.pinned}

    def _is_current(self) -> bool:
        key = self.session.key
        return self._current is not None and key(self._current.setting) == key(self.setting)

    def _draw_board(self) -> None:
        view = self.pictures.variable.value, self.pictures.lead.value
        against, defaults = self.toolbar.reference.value, defaults_of(self._forecaster)
        units = units_of(self._forecaster, view[0])
        self.table.value = board.scoreboard(self._results(), against, *view, defaults, units)

    def _show_film(self) -> None:
        if self._current is not None and not self.sampling.busy:
            self.pictures.show_film(self._current, self.pictures.at.value)

    def _view(self, name: str, value: Any) -> None:
        control = getattr(self.pictures, name)
        allowed = control.options if name == "variable" else control.stops
        if value not in allowed:
            hint = nearest(str(value), control.options) if name == "variable" else f" of {list(allowed)}"
            raise ValueError(f"there is no {name} {value!r}{hint}")
        control.value = value

    def _export_and_say(self) -> None:
        files = self.export()
        self.toolbar.say(f"wrote {', '.join(file.name for file in files)} to {files[0].parent.resolve()}")

    def _fail(self, error: Exception) -> None:
        self.error = error
        self.toolbar.status.fault = board.fault(error)
        self._end("failed")

    def _say_stopped(self) -> None:
        if self.error is None:
            self._end("stopped")

    def _end(self, how: str) -> None:
        """Say that a run ended early, and of the pictures of an earlier setting that they are."""
        self.toolbar.say(how, 0.0)
        if self._current is not None and not self._is_current():
            self.pictures.mark_as_old()
            self._draw_board()
