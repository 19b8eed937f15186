import threading
import time

import pytest

from diffusion_lab.widgets.worker import LatestOnly

WAIT = 20.0


class Recorder:
    """A worker whose runs yield 0 … n − 1 and wait between items for a permit."""

    def __init__(self, n=3, min_interval=0.0):
        self.n, self.permits = n, threading.Semaphore(0)
        self.started, self.shown, self.errors, self.stops = threading.Event(), [], [], 0
        self.closed = []
        self.worker = LatestOnly(self.make, self.shown.append, self.errors.append, self.stop, min_interval)

    def make(self, request, check):
        try:
            for i in range(self.n):
                self.started.set()
                assert self.permits.acquire(timeout=WAIT)
                check()
                if request == "bad":
                    raise ValueError("bad request")
                yield request, i
        finally:
            self.closed.append(request)

    def stop(self):
        self.stops += 1

    def finish(self):
        self.permits.release(1000)
        assert self.worker.wait_idle(WAIT)


@pytest.fixture
def recorder():
    return Recorder()


def test_all_items_of_a_lone_request_are_shown(recorder):
    recorder.worker.submit("a")
    recorder.finish()
    assert recorder.shown == [("a", 0), ("a", 1), ("a", 2)]
    assert not recorder.errors and not recorder.stops


def test_the_newest_request_wins(recorder):
    recorder.worker.submit("a")
    assert recorder.started.wait(WAIT)
    for request in "bcd":
        recorder.worker.submit(request)
    recorder.finish()
    assert recorder.shown == [("d", 0), ("d", 1), ("d", 2)]
    assert recorder.closed == ["a", "d"]  # b and c never began, a was ended at its first check
    assert not recorder.stops


def test_a_patient_request_waits_for_the_patient_part_of_a_run():
    """And a run that was granted patience shows its vital item, however soon after another one it comes."""
    go_on, shown = threading.Semaphore(0), []

    def make(request, check):
        yield request, "first"
        for part in ("preview", "end"):
            assert go_on.acquire(timeout=WAIT)
            check(patient=part == "preview")
            yield request, part

    def vital(item):
        return item[1] == "preview"

    worker = LatestOnly(make, shown.append, [].append, min_interval=3600.0, vital=vital)
    worker.submit("a")
    while not shown:
        time.sleep(0.001)
    for request in "bc":
        worker.submit(request, patience=WAIT)
    go_on.release(100)
    assert worker.wait_idle(WAIT)
    assert shown == [("a", "first"), ("a", "preview"), *(("c", part) for part in ("first", "preview", "end"))]
    worker.submit("d")
    worker.submit("e", patience=WAIT)
    worker.submit("f")  # the hand has come to rest
    assert worker.wait_idle(WAIT)
    assert ("d", "preview") not in shown and shown[-1] == ("f", "end")


def test_cancel_stops_at_the_next_check(recorder):
    recorder.worker.submit("a")
    assert recorder.started.wait(WAIT)
    recorder.worker.submit("b")
    recorder.worker.cancel()
    recorder.finish()
    assert recorder.shown == [] and recorder.closed == ["a"] and recorder.stops == 1
    recorder.worker.submit("c")
    assert recorder.worker.wait_idle(WAIT)
    assert recorder.shown[-1] == ("c", 2)


def test_what_is_cancelled_before_it_begins_counts_as_stopped(recorder):
    with recorder.worker._changed:  # the thread cannot begin
        recorder.worker.submit("a")
        recorder.worker.cancel()
    assert recorder.worker.wait_idle(WAIT)
    assert recorder.stops == 1 and not recorder.started.is_set()


def test_an_error_is_reported_and_the_worker_goes_on(recorder):
    recorder.worker.submit("bad")
    recorder.finish()
    assert [str(e) for e in recorder.errors] == ["bad request"]
    recorder.worker.submit("good")
    assert recorder.worker.wait_idle(WAIT)
    assert recorder.shown[-1] == ("good", 2)


def test_fast_items_are_left_out_but_never_the_last():
    recorder = Recorder(n=50, min_interval=3600.0)
    recorder.worker.submit("a")
    recorder.finish()
    assert recorder.shown == [("a", 0), ("a", 49)]


def test_no_thread_is_left(recorder):
    before = threading.active_count()
    recorder.permits.release(10**6)
    for request in range(50):
        recorder.worker.submit(request)
    assert recorder.worker.wait_idle(WAIT)
    assert recorder.shown[-1] == (49, 2)
    deadline = time.monotonic() + WAIT
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threading.active_count() == before


def test_waiting_for_idle_gives_up_in_time(recorder):
    assert recorder.worker.wait_idle(0)
    recorder.worker.submit("a")
    assert recorder.worker.busy
    assert not recorder.worker.wait_idle(0.01)
    recorder.finish()
    assert not recorder.worker.busy


def test_a_worker_that_waits_for_itself_is_told_so():
    worker = LatestOnly(lambda r, check: iter([r]), lambda item: worker.wait_idle(), (errors := []).append)
    worker.submit(1)
    assert worker.wait_idle(WAIT)
    assert "cannot wait for itself" in str(errors[0])
