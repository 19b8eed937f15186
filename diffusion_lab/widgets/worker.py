"""One thread that always works for the newest request, so that a slow computation can follow a fast hand.

    worker = LatestOnly(make, show, failed, stopped)
    worker.submit(setting)          # returns at once; the run of an older setting ends at its next check

`make(setting, check)` is a generator; `show` draws what it yields. The thread lives only while there is work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

Request = TypeVar("Request")
Item = TypeVar("Item")


class Cancelled(Exception):
    """Ends a run that nobody waits for any more; never an error."""


class Check(Protocol):
    """Raises `Cancelled` if the run is no longer wanted."""

    def __call__(self, patient: bool = False) -> None:
        """`patient` lets a replaced run go on for as long as the newer request has the patience to wait."""


class LatestOnly(Generic[Request, Item]):
    """Run a generator for the newest request; older ones are dropped.

    All the functions are called on the worker's thread, where gradients are on unless switched off there.

    Args:
        make: `make(request, check)` yields items; it calls `check` wherever it can stop, and before each item
            that should not appear once the run is stale.
        show: draws an item. Items that come faster than `min_interval` are left out, never the last one.
        failed: gets the exception if `make` or `show` raised one; the next request runs as usual.
        stopped: called after a run that `cancel` ended, if no newer request waits.
        min_interval: seconds between two pictures; browsers draw about ten a second.
        vital: whether an item is drawn however soon after another it comes.
    """

    def __init__(
        self,
        make: Callable[[Request, Check], Iterator[Item]],
        show: Callable[[Item], None],
        failed: Callable[[Exception], None],
        stopped: Callable[[], None] = lambda: None,
        min_interval: float = 0.1,
        vital: Callable[[Item], bool] = lambda item: False,
    ) -> None:
        self._make, self._show, self._failed, self._stopped = make, show, failed, stopped
        self._min_interval, self._vital = min_interval, vital
        self._changed = threading.Condition()
        self._newest = 0  # number of the newest request or cancellation
        self._patient_until = 0.0  # on the monotonic clock
        self._pending: tuple[int, Request] | None = None
        self._thread: threading.Thread | None = None

    def submit(self, request: Request, patience: float = 0.0) -> None:
        """Work for this request instead of any other.

        Args:
            request: what to make.
            patience: seconds for which it waits for the patient part of the run that it replaces; a series of
                requests shares those of its first.
        """
        with self._changed:
            if not patience:
                self._patient_until = 0.0
            elif self._pending is None:
                self._patient_until = time.monotonic() + patience
            self._newest += 1
            self._pending = (self._newest, request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="diffusion_lab worker", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """End the run at its next check; what waits ends before it begins."""
        with self._changed:
            self._newest += 1
            self._patient_until = 0.0

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return self._thread is not None

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or waits; False if that took longer than `timeout` seconds.

        Raises:
            RuntimeError: on the worker's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("the worker cannot wait for itself; call wait_idle from another thread")
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._pending is None:
                    self._thread = None
                    self._changed.notify_all()
                    return
                (number, request), self._pending = self._pending, None
            try:
                self._run(number, request)
            except Cancelled:
                if self._pending is None:
                    self._stopped()
            except Exception as error:
                self._failed(error)

    def _run(self, number: int, request: Request) -> None:
        def check(patient: bool = False) -> None:
            if number != self._newest and not (patient and time.monotonic() < self._patient_until):
                raise Cancelled

        check()  # it may have been cancelled while it waited
        shown, waiting = -self._min_interval, list[Item]()
        for item in self._make(request, check):
            waiting = [item]
            if time.monotonic() - shown >= self._min_interval or self._vital(item):
                self._show(waiting.pop())
                shown = time.monotonic()
        check()
        for item in waiting:
            self._show(item)
