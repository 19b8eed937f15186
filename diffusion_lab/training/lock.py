"""One training at a time in a run's folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_lab.config import ConfigError


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder, which is made if necessary.

    The operating system releases the lock when its process ends, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{folder}: process {file.read().strip() or 'unknown'} is training this run; wait until it "
                "has finished, stop it, or start another run with name=SOMETHING_ELSE"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
