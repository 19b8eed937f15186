import multiprocessing
import os
import signal

import pytest

from diffusion_lab.config import ConfigError
from diffusion_lab.training.lock import hold


def keep(folder, holding):
    with hold(folder):
        holding.set()
        signal.pause()


def test_a_run_is_trained_by_one_process(tmp_path):
    fork = multiprocessing.get_context("fork")
    holding = fork.Event()
    other = fork.Process(target=keep, args=(tmp_path, holding), daemon=True)
    other.start()
    assert holding.wait(30)
    with (
        pytest.raises(
            ConfigError, match=f"process {other.pid} .* is training this run; .* name=SOMETHING_ELSE"
        ),
        hold(tmp_path),
    ):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with hold(tmp_path):  # what a killed process leaves is no obstacle
        assert (tmp_path / "lock").read_text().startswith(f"{os.getpid()} ")


def test_a_run_can_be_trained_again(tmp_path):
    for _ in range(2):
        with hold(tmp_path / "run"):
            pass
