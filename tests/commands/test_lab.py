import json
import os
from pathlib import Path

import nbformat
import pytest

from diffusion_lab.commands import cli, lab

ROOT = Path(__file__).parents[2]


def test_a_checkout_works_on_its_own_notebooks():
    assert lab.tutorials() == ROOT / "notebooks"


def test_an_installed_package_works_on_a_copy_and_keeps_what_was_changed(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "diffusion_lab"
    (package / "notebooks").mkdir(parents=True)
    for name in ("01.ipynb", "02.ipynb", "conftest.py"):
        (package / "notebooks" / name).write_text(f"shipped {name}")
    monkeypatch.setattr(lab, "files", lambda name: package)
    monkeypatch.chdir(tmp_path)
    copy = lab.tutorials()
    assert copy == tmp_path / "diffusion_lab_notebooks"
    assert {path.name for path in copy.iterdir()} == {"01.ipynb", "02.ipynb"}
    (copy / "01.ipynb").write_text("mine")
    (copy / "02.ipynb").unlink()
    lab.tutorials()
    assert (copy / "01.ipynb").read_text() == "mine"
    assert (copy / "02.ipynb").read_text() == "shipped 02.ipynb"


def test_the_app_is_a_notebook_that_works_in_the_users_folder(tmp_path, monkeypatch):
    """Its kernel starts beside the temporary notebook, but exports belong where the command was given."""
    here = tmp_path / "it's \\ mine"
    here.mkdir()
    monkeypatch.chdir(here)
    with lab.tuner_notebook() as path:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(json.loads(path.read_text()))
    assert not path.parent.exists()
    (cell,) = notebook.cells
    os.chdir(tmp_path)
    exec(cell.source[: cell.source.index("from diffusion_lab")])
    assert Path.cwd() == here
    assert cell.source.splitlines()[-1] == 'SamplerTuner("example-tendency")'


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ([], ("open_lab", None, [])),
        (["--port", "9000", "--no-browser"], ("open_lab", None, ["--no-browser", "--port=9000"])),
        (["--notebooks", "mine", "--", "--ip=::"], ("open_lab", "mine", ["--ip=::"])),
        (["--tuner", "--port=1", "--", "--theme=dark"], ("serve_tuner", ["--port=1", "--theme=dark"])),
    ],
)
def test_options_are_handed_on(words, called, monkeypatch):
    calls = []
    for name in ("open_lab", "serve_tuner"):
        monkeypatch.setattr(lab, name, lambda *given, name=name: calls.append((name, *given)))
    assert cli.main(["lab", *words]) == 0
    assert calls == [called]


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert cli.main(["lab", "--notebooks", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
