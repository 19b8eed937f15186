"""One thread that always works for the newest request, so that a slow computation can follow a fast hand.

    worker = LatestOnly(make, show, failed, stopped)
    worker.submit(setting)          # returns at once; what runs for an older setting stops at its next check

`make(setting, check)` is a generator, `show` draws what it yields. The thread lives only while there is work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Request = TypeVar("Request")
Item = TypeVar("Item")


class Cancelled(Exception):
    """Ends a run that nobody waits for any more; never an error."""


class LatestOnly(Generic[Request, Item]):
    """Run a generator for the newest request; older ones are dropped.

    All the functions are called on the worker's thread, where gradients are on unless switched off there.

    Args:
        make: `make(request, check)` yields items; it calls `check()` wherever it can stop, which raises
            `Cancelled` if the run has become stale. After the first item, the worker checks by itself, too.
        show: draws an item. Items that come faster than `min_interval` are left out, never the last one.
        failed: gets the exception if `make` or `show` raised one; the next request runs as usual.
        stopped: called after a run that `cancel` ended, if no newer request waits.
        min_interval: seconds between two pictures; browsers take about ten a second.
    """

    def __init__(
        self,
        make: Callable[[Request, Callable[[], None]], Iterator[Item]],
        show: Callable[[Item], None],
        failed: Callable[[Exception], None],
        stopped: Callable[[], None] = lambda: None,
        min_interval: float = 0.1,
    ) -> None:
        self._make, self._show, self._failed, self._stopped = make, show, failed, stopped
        self._min_interval = min_interval
        self._changed = threading.Condition()
        self._newest = 0  # number of the newest request or cancellation
        self._pending: tuple[int, Request] | None = None
        self._thread: threading.Thread | None = None

    def submit(self, request: Request) -> None:
        """Work for this request instead of any other."""
        with self._changed:
            self._newest += 1
            self._pending = (self._newest, request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="diffusion_lab worker", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Stop what runs at its next check; what waits will end before it begins."""
        with self._changed:
            self._newest += 1

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
        def check() -> None:
            if number != self._newest:
                raise Cancelled

        check()  # it may have been cancelled while it waited
        shown, waiting = -self._min_interval, []
        items = self._make(request, check)
        for number_of_item, item in enumerate(items):
            # The first item is always shown: under a moving hand the picture follows.
            if number_of_item:
                check()
            waiting = [item]
            if time.monotonic() - shown >= self._min_interval:
                self._show(waiting.pop())
                shown = time.monotonic()
        check()
        for item in waiting:
            self._show(item)
