"""Virtual environments of the peers, made once and kept in the user's cache.

The peers want other versions of libraries than we do (anemoi-datasets: zarr 2), so they are never installed
beside us. Each environment sees what is installed here and puts its own versions before it: no second torch.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REQUIREMENTS = {
    # Its graphs need trimesh and netCDF4 without saying so.
    "models": ["anemoi-models==0.13.0", "anemoi-graphs==0.9.0", "trimesh", "netCDF4"],
    "datasets": ["anemoi-datasets[create]>=0.5.47,<0.6"],
}
PIP_SECONDS = 900


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.peers)


def _environment(name):
    """The Python of a peer's environment; skips the test where pip cannot make it."""
    requirements, ours = REQUIREMENTS[name], sysconfig.get_path("purelib")
    key = hashlib.sha256(repr([requirements, ours, sys.version]).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "diffusion-lab" / f"anemoi-{name}-{key}"
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (site_packages,) = folder.glob("lib/python*/site-packages")
        # addsitedir, unlike a path of its own in this file, follows the editable install of this project.
        (site_packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
        try:
            subprocess.run(
                [*pip, *requirements], check=True, timeout=PIP_SECONDS, capture_output=True, text=True
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            reason = (error.stderr or str(error)).strip().splitlines()[-1]
            pytest.skip(f"pip cannot install {' '.join(requirements)}: {reason}")
        finished.touch()
    return python


@pytest.fixture(scope="session")
def anemoi_models():
    """A Python with anemoi-models and anemoi-graphs beside everything of ours."""
    return _environment("models")


@pytest.fixture(scope="session")
def anemoi_datasets():
    """A Python with anemoi-datasets and its zarr 2; of our packages only those it agrees with."""
    return _environment("datasets")


@pytest.fixture(scope="session")
def run_peer():
    """Run a peer's Python in our checkout; a failure shows the end of all it printed."""

    def run(python, *arguments):
        done = subprocess.run(
            [python, *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            pytest.fail(f"{' '.join(map(str, arguments))}\n{done.stdout[-6000:]}", pytrace=False)
        return done.stdout

    return run
