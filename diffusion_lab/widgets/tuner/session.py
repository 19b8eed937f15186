"""The tuner without its looks: forecasts made step by step, watched, ended early and kept."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.denoisers import Denoiser
from diffusion_lab.inference import Forecaster, load_forecaster
from diffusion_lab.inference.rollout import SolverStep, default_members_per_call
from diffusion_lab.stores.store import Store
from diffusion_lab.widgets.tuner.result import Place, Result, truth_of
from diffusion_lab.widgets.tuner.setting import Setting
from diffusion_lab.widgets.worker import Cancelled, Check

# On a CPU the first call is the preview: an ensemble needs at least two members.
PREVIEWED = 2


@dataclass(frozen=True)
class Frame:
    """A moment of a run.

    Attributes:
        setting: what is sampled.
        member: whose denoising is watched.
        lead: number of the forecast step that the first members are at.
        step: solver steps they have done in it.
        num_steps: of how many.
        sigma: noise level of `denoised`.
        denoised: (cell, output variable) D(y; σ) of the watched member, physical units; None at the end.
        calls: network calls done, of all chunks of members.
        share: part of the run that is done, 0 … 1.
        seconds: since it began.
        truth: (lead, cell, output variable) what came true, NaN where unknown.
        result: what is ready: None at first, then of some members, at the end of all.
    """

    setting: Setting
    member: int
    lead: int
    step: int
    num_steps: int
    sigma: float
    denoised: np.ndarray | None
    calls: int
    share: float
    seconds: float
    truth: np.ndarray
    result: Result | None


class Session:
    """Forecasters that were loaded and forecasts that were made, by setting.

    Args:
        data: the store forecasts start from; None for each checkpoint's own.
        members_per_call: members in one network call; None for a choice by the device.
        compile: as of `load_forecaster`.
        lanes: calls at the same time, each on one processor; None for as many as torch has threads. On a
            small network two calls of one thread take half the time of two of two threads.
        cache_bytes: of finished forecasts that are kept; the oldest go first.
    """

    def __init__(
        self,
        data: Store | str | Path | None = None,
        members_per_call: int | None = None,
        compile: bool = False,
        lanes: int | None = None,
        cache_bytes: int = 48 * 2**20,
    ) -> None:
        self.data, self._members_per_call, self.compile = data, members_per_call, compile
        self.lanes = lanes or torch.get_num_threads()
        self._cache_bytes = cache_bytes
        self._results: OrderedDict[tuple, Result] = OrderedDict()
        self._forecasters: OrderedDict[tuple[str, str], Forecaster] = OrderedDict()
        self._adopted: dict[tuple[str, str], Forecaster] = {}
        self._places: dict[str, Place] = {}
        self._stores: WeakKeyDictionary[Forecaster, Store] = WeakKeyDictionary()
        self._warm: WeakSet[Forecaster] = WeakSet()
        self._loading = threading.RLock()

    def adopt(self, forecaster: Forecaster) -> tuple[str, str]:
        """Take a loaded forecaster, known by its network's class and its device, which are returned."""
        key = forecaster.release.model, str(forecaster.device)
        self._adopted[key] = forecaster
        return key

    def loading(self, setting: Setting) -> str:
        """Python that makes a setting's forecaster; of an adopted one nobody knows how."""
        if (setting.checkpoint, setting.device) in self._adopted:
            return (
                f"# forecaster: the one that the tuner was given ({setting.checkpoint} on {setting.device})"
            )
        compiled = ", compile=True" if self.compile else ""
        return (
            "from diffusion_lab.inference import load_forecaster\n\n"
            f"forecaster = load_forecaster({setting.checkpoint!r}, device={setting.device!r}{compiled})"
        )

    def forecaster(self, checkpoint: str, device: str) -> Forecaster:
        """The forecaster of a checkpoint on a device; the last two are kept.

        Raises:
            FileNotFoundError: there is no such checkpoint.
        """
        with self._loading:
            key = (checkpoint, device)
            if key in self._adopted:
                return self._adopted[key]
            if key not in self._forecasters:
                self._forecasters[key] = load_forecaster(checkpoint, device, compile=self.compile)
            self._forecasters.move_to_end(key)
            while len(self._forecasters) > 2:
                self._forecasters.popitem(last=False)
            return self._forecasters[key]

    def members_per_call(self, device: str) -> int:
        """Members in one network call: the chunks in which results equal those of `forecast` bit for bit."""
        default = PREVIEWED if torch.device(device).type == "cpu" else default_members_per_call(device)
        return self._members_per_call or default

    def result(self, setting: Setting) -> Result | None:
        """The finished forecast of a setting, if it is kept."""
        key = self.key(setting)
        if key in self._results:
            self._results.move_to_end(key)
        return self._results.get(key)

    def forget(self) -> None:
        """Let go of all forecasts, and of forecasters that can be loaded again."""
        self._results.clear()
        self._forecasters.clear()
        self._places.clear()

    def store(self, forecaster: Forecaster) -> Store:
        """The store that forecasts start from; it stays open."""
        with self._loading:
            if forecaster not in self._stores:
                self._stores[forecaster] = forecaster.reader(self.data).store
            return self._stores[forecaster]

    def place(self, setting: Setting) -> Place:
        """Where the cells of a setting's forecaster are."""
        with self._loading:
            if setting.checkpoint not in self._places:
                forecaster = self.forecaster(setting.checkpoint, setting.device)
                self._places[setting.checkpoint] = Place(forecaster, self.store(forecaster))
            return self._places[setting.checkpoint]

    def run(
        self, setting: Setting, check: Check = lambda patient=False: None, member: int = 0
    ) -> Iterator[Frame]:
        """Make the forecast of a setting, a frame a solver step; the last frame holds all members.

        Of a forecast that is kept, at most the film of another member is made.

        Args:
            setting: what to make.
            check: called between network calls, patiently before the first members are ready; may raise
                `Cancelled` to end the run.
            member: whose denoising is watched; the last one where there are not as many.

        Raises:
            KeyError, ValueError: as `Forecaster.forecast`.
        """
        began = time.monotonic()
        member = min(member, setting.members - 1)
        kept = self.result(setting)
        if kept is None or member not in kept.films:
            forecaster = self.forecaster(setting.checkpoint, setting.device)
            setting.check(forecaster)
            yield from self._sample(_Run(self, forecaster, setting, member, check, began, kept))
            return
        yield Frame(
            setting=setting,
            member=member,
            lead=setting.steps,
            step=setting.num_steps,
            num_steps=setting.num_steps,
            sigma=0.0,
            denoised=None,
            calls=kept.calls,
            share=1.0,
            seconds=0.0,
            truth=kept.truth,
            result=kept,
        )

    def _sample(self, run: _Run) -> Iterator[Frame]:
        """Chunks of members in lanes, each a thread; what they report becomes frames."""
        lanes = min(self.lanes, len(run.chunks)) if run.forecaster.device.type == "cpu" else 1
        with ThreadPoolExecutor(lanes, "diffusion_lab lane") as pool:
            try:
                pool.submit(run.lane, lanes > 1)
                for number, frame in enumerate(run.frames()):
                    if number == 0:  # the first picture comes sooner while nothing else computes
                        for _ in range(lanes - 1):
                            pool.submit(run.lane, True)
                    yield frame
            finally:
                run.over = True  # a consumer that went away ends the lanes, too
        result = run.result(finished=True)
        assert result is not None
        self._keep(result)
        self._warm.add(run.forecaster)
        yield run.frame(None, result)

    def compiles_first(self, setting: Setting) -> bool:
        """Whether a run will begin with making the network faster; on a CPU it stays as it is."""
        forecaster = self.forecaster(setting.checkpoint, setting.device)
        known = forecaster in self._warm or forecaster in self._adopted.values()
        return self.compile and forecaster.device.type != "cpu" and not known

    def _keep(self, result: Result) -> None:
        self._results[self.key(result.setting)] = result
        while len(self._results) > 1 and sum(r.nbytes for r in self._results.values()) > self._cache_bytes:
            self._results.popitem(last=False)

    @staticmethod
    def key(setting: Setting) -> tuple:
        """Equal for settings that make the same forecast: they differ in what their sampler does not take."""
        if setting.steps == 1:
            setting = setting.changed(noise_correlation=0.0)  # with the step before, of which there is none
        kwargs = setting.predict_kwargs.values()
        made = (
            setting.checkpoint,
            setting.device,
            setting.date,
            setting.steps,
            setting.members,
            setting.seed,
        )
        return (*made, *(tuple(options.items()) for options in kwargs))


class _Run:
    """The chunks of one run on their way."""

    def __init__(
        self,
        session: Session,
        forecaster: Forecaster,
        setting: Setting,
        member: int,
        check: Check,
        began: float,
        kept: Result | None,
    ) -> None:
        self.session, self.forecaster, self.setting, self.member = session, forecaster, setting, member
        self.began, self.over, self.calls, self.steps_done = began, False, 0, 0
        self._check, self._previewed, self._kept = check, False, kept
        size = session.members_per_call(setting.device)
        chunks = [range(i, min(i + size, setting.members)) for i in range(0, setting.members, size)]
        watched = chunks.pop(member // size)
        self.chunks = [watched] if kept else [watched, *chunks]
        self._waiting = iter(self.chunks)
        self._reports: queue.SimpleQueue = queue.SimpleQueue()
        self._states: dict[range, list[np.ndarray]] = {chunk: [] for chunk in self.chunks}
        self._film: list[np.ndarray] = []
        self._truth = truth_of(forecaster, session.store(forecaster), setting)
        self._first_calls = 0
        self._lock = threading.Lock()

    def lane(self, one_thread: bool) -> None:
        """Work on chunks until none is left; every end is reported."""
        try:
            with _torch_threads(1 if one_thread else None):
                while (chunk := self._next()) is not None:
                    for step in self._solver_steps(chunk):
                        self._reports.put((chunk, step))
        except BaseException as error:
            self._reports.put((None, error))

    def _next(self) -> range | None:
        with self._lock:
            return next(self._waiting, None)

    def _solver_steps(self, chunk: range) -> Iterator[SolverStep]:
        setting = self.setting
        rollout = self.forecaster.rollout(
            setting.date,
            setting.steps,
            chunk,
            setting.seed,
            setting.sampling(self.forecaster),
            self.session.data,
            members_per_call=len(chunk),
            wrap=lambda denoiser: self._watched(denoiser, chunk),
        )
        return rollout.solver_steps()

    def _watched(self, denoiser: Denoiser, chunk: range) -> Denoiser:
        """Ends between two calls. The first is always made: a picture for each place of a moving slider."""

        def call(y: Tensor, sigma: Tensor) -> Tensor:
            with self._lock:
                self.calls += 1
                first = self.calls <= 1
            if not first:
                if self.over:
                    raise Cancelled
                self._check(patient=not self._previewed)
            return denoiser(y, sigma)

        return call

    def frames(self) -> Iterator[Frame]:
        """A frame for each solver step of the watched chunk, and for each chunk that is ready."""
        total = len(self.chunks) * self.setting.steps * self.setting.num_steps
        levels = self.setting.sampling(self.forecaster).sigmas().tolist()
        while self.steps_done < total:
            chunk, step = self._reports.get()
            if chunk is None:
                raise step
            self.steps_done += 1
            if step.last:
                self._states[chunk].append(step.state())
            ready = step.last and step.lead == self.setting.steps
            if self._film:  # the first step is always shown: the picture follows a moving hand
                self._check(patient=not self._previewed)
            if chunk is self.chunks[0]:
                self._first_calls = step.step.nfe
                self._film.append(step.denoised()[self.member - chunk.start])
                yield self.frame((step, levels[step.step.index]), self.result() if ready else None)
            elif ready:
                yield self.frame(None, self.result())
            self._previewed |= ready and chunk is self.chunks[0]

    def frame(self, at: tuple[SolverStep, float] | None, result: Result | None) -> Frame:
        """What there is to see."""
        setting = self.setting
        total = len(self.chunks) * setting.steps * setting.num_steps
        lead, step = (setting.steps, setting.num_steps) if at is None else (at[0].lead, at[0].step.index + 1)
        return Frame(
            setting,
            self.member,
            lead,
            step,
            setting.num_steps,
            0.0 if at is None else at[1],
            None if at is None else self._film[-1],
            self.calls,
            self.steps_done / total,
            time.monotonic() - self.began,
            self._truth,
            result,
        )

    def result(self, finished: bool = False) -> Result | None:
        """The members that are ready."""
        ready = sorted(
            (c for c in self.chunks if len(self._states[c]) == self.setting.steps), key=lambda c: c.start
        )
        if self.chunks[0] not in ready:
            return None
        leads = range(self.setting.steps)
        states = np.stack([np.concatenate([self._states[chunk][lead] for chunk in ready]) for lead in leads])
        film = np.stack(self._film).reshape(self.setting.steps, self.setting.num_steps, *states.shape[2:])
        if self._kept is not None:
            return replace(self._kept, films={**self._kept.films, self.member: film})
        return Result(
            setting=self.setting,
            forecaster=self.forecaster,
            members=tuple(member for chunk in ready for member in chunk),
            states=states,
            films={self.member: film},
            truth=self._truth,
            place=self.session.place(self.setting),
            calls=self._first_calls,
            seconds=time.monotonic() - self.began,
            finished=finished,
        )


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Give torch's work on this thread so many processors; None leaves them."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
