"""Virtual environments of the peers, made once and kept in the user's cache.

The peers want other versions of libraries than we do (anemoi-datasets: zarr 2), so they are never installed
beside us. Each environment sees what is installed here and puts its own versions before it: no second torch.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = {
    # Its graphs need trimesh and netCDF4 without saying so.
    "models": ["anemoi-models==0.13.0", "anemoi-graphs==0.9.0", "trimesh", "netCDF4"],
    "datasets": ["anemoi-datasets[create]>=0.5.47,<0.6"],
}
PIP_SECONDS = 240  # it takes 40
PEER_SECONDS = 600


def environment(name):
    """The Python of a peer's environment; skips the test where pip cannot make it in time."""
    requirements, ours = REQUIREMENTS[name], sysconfig.get_path("purelib")
    key = hashlib.sha256(repr([requirements, ours, sys.version]).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion-lab"
    folder = cache / f"anemoi-{name}-{key}"
    python, finished = folder / "bin" / "python", folder / "finished"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be making it
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what an earlier run was stopped in
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            (site_packages,) = folder.glob("lib/python*/site-packages")
            # addsitedir, unlike a path of its own in this file, follows the editable install of this project.
            (site_packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
            _install(python, requirements, folder)
            finished.touch()
    return python


def _install(python, requirements, folder):
    # A registry that does not answer is asked twice, for 15 s each; a slow one is left after PIP_SECONDS.
    pip = [sys.executable, "-m", "pip", "--python", python, "--timeout", "15", "--retries", "1"]
    pip += ["--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    try:
        status, output = run(
            [*pip, *requirements], PIP_SECONDS, TMPDIR=folder
        )  # what is left there goes with it
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip did not install {' '.join(requirements)} within {PIP_SECONDS} s")
    if status:
        reason = (output.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"pip cannot install {' '.join(requirements)}: {reason}")


def run(command, seconds, **variables):
    """Run a command in our checkout, with further environment variables; its exit status and all it printed.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was ended together with what it started.
    """
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {name: str(value) for name, value in variables.items()},
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException:  # Ctrl-C, too, does not reach another session
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output
