"""Where an environment cannot be had, the peers' tests are skipped, soon and with the reason."""

import socket
import subprocess
import sys
import time

import numpy as np
import peer_environments
import pytest


@pytest.fixture(autouse=True)
def nothing_made_yet(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def test_a_registry_that_never_answers_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(peer_environments, "PIP_SECONDS", 3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        with pytest.raises(pytest.skip.Exception, match=r"pip did not install anemoi-models.* within 3 s"):
            peer_environments.environment("models")
    assert not list(tmp_path.rglob("finished"))


def test_what_a_registry_lacks_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(pytest.skip.Exception, match=r"pip cannot install .*: ERROR: No matching"):
        peer_environments.environment("models")
    assert not list(tmp_path.rglob("finished"))


def test_what_is_made_is_made_once(monkeypatch):
    installs = []
    monkeypatch.setattr(peer_environments, "_install", lambda *arguments: installs.append(arguments))
    python = peer_environments.environment("models")
    assert peer_environments.environment("models") == python
    assert len(installs) == 1
    seen = subprocess.check_output([python, "-c", "import numpy; print(numpy.__version__)"], text=True)
    assert seen.strip() == np.__version__


def test_a_command_ends_with_what_it_started(tmp_path):
    """Also the grandchild, as pip in another environment is one: or it would go on installing."""
    alive = tmp_path / "alive"
    child = f"import time, pathlib\nwhile True: pathlib.Path({str(alive)!r}).touch(); time.sleep(0.02)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(subprocess.TimeoutExpired):
        peer_environments.run([sys.executable, "-c", script], 2)
    alive.unlink(missing_ok=True)
    time.sleep(0.2)
    assert not alive.exists()
