"""Forecasts on several devices: a process on each computes whole chunks of members, or some start dates.

    for state in states_on_devices("example-tendency", ["cuda:0", "cuda:1"], "2025-01-15", 10, range(64)):
        ...                                     # (ensemble, cell, variable), one lead after the other

Members are independent, so only results are exchanged. Noise is keyed by member, so it is bit-equal on any
number of devices. Forecasts are bit-equal for equal chunks of members (otherwise matrix products round
differently), hence the whole chunks.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion_lab.inference.forecaster import Forecaster, load_forecaster
from diffusion_lab.inference.rollout import Rollout, default_members_per_call
from diffusion_lab.sampling import SamplingSettings

Job = Callable[[Forecaster], Rollout]
Inbox = queue.SimpleQueue[NDArray[np.float32] | Exception]


def choose_devices(count: int, kind: str = "auto") -> list[str]:
    """The first `count` GPUs, or "cpu" as many times if there is no GPU or `kind` is "cpu".

    Raises:
        ValueError: fewer than one, more than there are GPUs, or a kind that names a single device.
    """
    if count < 1:
        raise ValueError(f"devices = {count} must be at least 1")
    if kind not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device = {kind!r} cannot be spread over {count}; give auto, cpu or cuda")
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return ["cpu"] * count
    if count > torch.cuda.device_count():
        raise ValueError(f"devices = {count}, but this machine has {torch.cuda.device_count()} GPUs")
    return [f"cuda:{i}" for i in range(count)]


def states_on_devices(
    checkpoint: str | Path,
    devices: Sequence[str],
    date: str | np.datetime64,
    steps: int,
    members: Sequence[int],
    *,
    seed: int = 0,
    settings: SamplingSettings | None = None,
    data: str | Path | None = None,
    members_per_call: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The states of a rollout, with the members distributed over devices.

    Further arguments as `Forecaster.rollout`, except that `data` cannot be an open store.

    Each of `devices` runs a process, which loads the checkpoint; a device may be listed twice.

    Yields:
        (ensemble, cell, output variable), physical units, one lead after the other.
    """
    chunk = chunk_for(len(members), devices) if members_per_call is None else members_per_call
    shares = deal(list(members), chunk, len(devices))
    options: dict[str, Any] = {"seed": seed, "settings": settings, "data": data, "members_per_call": chunk}
    with ExitStack() as stack:
        workers = []
        for device, share in zip(devices, shares, strict=False):
            job = partial(Forecaster.rollout, date=date, steps=steps, members=share, **options)
            workers.append(stack.enter_context(_worker(checkpoint, device, [job])))
        for _ in range(steps):
            yield np.concatenate([_receive(worker) for worker in workers])


def starts_on_devices(
    checkpoint: str | Path,
    devices: Sequence[str],
    starts: Sequence[np.datetime64],
    steps: int,
    members: Sequence[int],
    *,
    seed: int = 0,
    settings: SamplingSettings | None = None,
    data: str | Path | None = None,
    members_per_call: int | None = None,
) -> Iterator[Iterator[NDArray[np.float32]]]:
    """Forecasts from several start dates, which are assigned to the devices in turn.

    Arguments as `states_on_devices`. Yields an iterator over the states of each start, in the order of
    `starts`; exhaust it before taking the next. Meanwhile the devices go on, and their states are kept.
    """
    options: dict[str, Any] = {"seed": seed, "settings": settings, "data": data}
    options |= {"steps": steps, "members": list(members), "members_per_call": members_per_call}
    rollouts = [partial(Forecaster.rollout, date=start, **options) for start in starts]
    with ExitStack() as stack:
        devices = devices[: len(starts)]
        workers = [
            stack.enter_context(_worker(checkpoint, device, rollouts[i :: len(devices)]))
            for i, device in enumerate(devices)
        ]
        for i in range(len(starts)):
            yield map(_receive, [workers[i % len(workers)]] * steps)


def chunk_for(members: int, devices: Sequence[str]) -> int:
    """Members in one network call: as on one device, unless that would leave a device without members."""
    usual = default_members_per_call(devices[0])
    return usual if members > usual * (len(devices) - 1) else math.ceil(members / len(devices))


def deal(members: list[int], chunk: int, shares: int) -> list[list[int]]:
    """Members in at most `shares` runs of whole chunks, as evenly as chunks allow; none is empty."""
    chunks = [members[first : first + chunk] for first in range(0, len(members), chunk)]
    runs = np.array_split(np.arange(len(chunks)), min(shares, len(chunks)))
    return [[member for i in run for member in chunks[i]] for run in runs]


@contextmanager
def _worker(checkpoint: str | Path, device: str, jobs: Sequence[Job]) -> Iterator[Inbox]:
    """A process that sends the states of its jobs, until the context is left."""
    spawn = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(sender, checkpoint, device, jobs), daemon=True)
    process.start()
    sender.close()  # now only the worker has it, so the pipe ends when the worker dies
    inbox: Inbox = queue.SimpleQueue()
    # A pipe holds 64 kB; unless it is emptied at once, a device would wait to be read.
    reader = threading.Thread(target=_read, args=(receiver, inbox), daemon=True)
    reader.start()
    try:
        yield inbox
    finally:
        process.terminate()
        process.join()
        reader.join()
        receiver.close()


def _read(receiver: Connection, inbox: Inbox) -> None:
    try:
        while True:
            inbox.put(receiver.recv())
    except (EOFError, OSError):
        inbox.put(RuntimeError("a forecasting process died; it may have run out of memory"))


def _work(sender: Connection, checkpoint: str | Path, device: str, jobs: Sequence[Job]) -> None:
    if device == "cpu":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        forecaster = load_forecaster(checkpoint, device)
        for job in jobs:
            for state in job(forecaster).states():
                sender.send(state)
    except Exception as error:
        sender.send(error)


def _receive(inbox: Inbox) -> NDArray[np.float32]:
    """The next state; an error of the worker is raised here."""
    answer = inbox.get()
    if isinstance(answer, Exception):
        raise answer
    return answer
