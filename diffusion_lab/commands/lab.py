"""JupyterLab on the tutorials, and the sampler tuner alone as an app (Voilà)."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

TUTORIALS = "diffusion_lab_notebooks"

_TUNER = """\
import os
os.chdir({folder!r})  # where exported files go
from diffusion_lab.widgets import SamplerTuner
SamplerTuner("example-tendency")"""


def open_lab(folder: str | Path | None = None, options: Sequence[str] = ()) -> None:
    """Run JupyterLab until it is stopped.

    Args:
        folder: with the notebooks; None for the tutorials.
        options: JupyterLab's own.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    from jupyterlab.labapp import LabApp

    folder = tutorials() if folder is None else Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {str(folder)!r}")
    LabApp.launch_instance([f"--ServerApp.root_dir={folder.resolve()}", *options])


def serve_tuner(options: Sequence[str] = ()) -> None:
    """Serve the tuner as an app until it is stopped; `options` are Voilà's own."""
    from diffusion_lab.commands.tuner_app import TunerApp

    with tuner_notebook() as path:
        TunerApp.launch_instance([str(path), *options])


def tutorials() -> Path:
    """The folder of the tutorials: the checkout's, else a copy of the shipped ones in the working directory.

    A notebook that is already in the copy is left alone: it may hold somebody's work.
    """
    package = Path(str(files("diffusion_lab")))
    shipped = package / "notebooks"
    if not shipped.is_dir():
        return package.parent / "notebooks"
    copy = Path.cwd() / TUTORIALS
    copy.mkdir(exist_ok=True)
    for notebook in shipped.glob("*.ipynb"):
        if not (copy / notebook.name).exists():
            shutil.copyfile(notebook, copy / notebook.name)
    return copy


@contextmanager
def tuner_notebook() -> Iterator[Path]:
    """A notebook of one cell that shows the tuner, in a temporary folder."""
    cell: dict[str, object] = {
        "cell_type": "code",
        "id": "tuner",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": _TUNER.format(folder=str(Path.cwd())),
    }
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Sampler tuner.ipynb"
        path.write_text(json.dumps(notebook))
        yield path
