"""The notebooks of the series keep to the form that makes nbval's comparison mean something."""

import base64
import copy
import io
import runpy
from pathlib import Path

import nbformat
import numpy as np
import pytest
from notebook_lint import MAX_SERIES_BYTES, Notebook, lint
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
SERIES = sorted((ROOT / "notebooks").glob("*.ipynb"))
BUILD = runpy.run_path(str(ROOT / "notebooks" / "build.py"))

OPENING = """# 02 · Second

**What you will learn**: what a sound notebook is.

**Expected run time**: about 3 s on two CPU cores.

**Prerequisites**: none."""
EXERCISES = """## Exercises

**1.** Print it.

<details><summary>Solution</summary>

```python
print(x)
```

</details>

**2.** And its square?

<details><summary>Solution</summary>

It is 4.

</details>"""


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_notebook(path):
    assert lint(Notebook.read(path)) == []


def test_the_series_is_numbered_and_small():
    assert [path.name[:3] for path in SERIES] == [f"{path.name[:2]}_" for path in BUILD["series"]()]
    assert len({path.name[:2] for path in SERIES}) == len(SERIES)
    assert sum(path.stat().st_size for path in SERIES) < MAX_SERIES_BYTES


def markdown(text):
    return {"cell_type": "markdown", "id": "", "metadata": {}, "source": text.splitlines(keepends=True)}


def code(text, *outputs, count):
    return markdown(text) | {"cell_type": "code", "execution_count": count, "outputs": list(outputs)}


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": [text]}


def shown(**data):
    names = {"html": "text/html", "plain": "text/plain", "png": "image/png"}
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {names.get(k, k): v for k, v in data.items()},
    }


@pytest.fixture
def sound(tmp_path):
    """A second notebook of three without a fault: print, figure, assert, exercises, links."""
    for name in ("01_first", "02_second", "03_third"):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    cells = [
        markdown(OPENING),
        code("x = 2\nprint(x)", stream("2\n"), count=1),
        code("draw(x)", shown(png="iVBORw0KGgo=", plain="<Figure size 640x480 with 1 Axes>"), count=2),
        markdown("*A picture of x.*"),
        code("assert x == 2  # never await clear_output", count=3),
        markdown(EXERCISES),
        markdown("**Previous**: [01](01_first.ipynb) · **Next**: [03](03_third.ipynb)"),
    ]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i:02d}"
    metadata = {"kernelspec": {}, "language_info": {"name": "python"}, "measured_seconds": 4.1}
    return Notebook(tmp_path / "02_second.ipynb", {"metadata": metadata, "cells": cells})


def test_a_sound_notebook_passes(sound):
    assert lint(sound) == []


def edit(cell, old, new):
    def change(notebook):
        text = "".join(notebook.cells[cell]["source"])
        assert old in text
        notebook.cells[cell]["source"] = text.replace(old, new).splitlines(keepends=True)

    return change


def put(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(notebook):
        place = notebook.content
        for key in keys:
            place = place[key]
        place[last] = value

    return change


def output(value):
    return put("cells", 1, "outputs", [value])


def strip(notebook):
    for cell in notebook.code:
        cell.update(outputs=[], execution_count=None)


def without_outputs(notebook):
    for cell in notebook.code:
        cell["outputs"] = []


FAULTS = {
    "stripped": (strip, "executed: execution counts are [None, None, None]"),
    "without outputs": (without_outputs, "executed: no cell has an output"),
    "a cell not run": (
        put("cells", 2, "execution_count", None),
        "executed: execution counts are [1, None, 3]",
    ),
    "run out of order": (put("cells", 2, "execution_count", 7), "executed: execution counts are [1, 7, 3]"),
    "widget state": (put("metadata", "widgets", {}), "clean_metadata: metadata has"),
    "another Python": (
        put("metadata", "language_info", {"name": "python", "version": "3.12.1"}),
        "clean_metadata: language_info",
    ),
    "times of execution": (
        put("cells", 1, "metadata", {"execution": {"iopub.execute_input": "2025-01-01"}}),
        "clean_metadata: cell 1",
    ),
    "random id": (put("cells", 1, "id", "7f3c9a"), "clean_metadata: cell 1 has id 7f3c9a"),
    "address": (
        output(shown(plain="[<Line2D at 0x7f1c2ab5d0>]")),
        "stable_outputs: code cell 1 puts out a memory",
    ),
    "address in a print": (
        output(stream("<object at 0x7f1c2ab5d0>")),
        "stable_outputs: code cell 1 puts out a mem",
    ),
    "xarray's HTML": (
        output(shown(html="<div class='xr-wrap'>")),
        "stable_outputs: code cell 1 puts out xarray",
    ),
    "own path": (output(stream("written to /home/me/x.nc")), "stable_outputs: code cell 1 puts out a path"),
    "warning": (output(stream("UserWarning", "stderr")), "stable_outputs: code cell 1 writes to stderr"),
    "error": (output({"output_type": "error"}), "stable_outputs: code cell 1 writes to stderr or fails"),
    "widget's view": (
        output(shown(**{"application/vnd.jupyter.widget-view+json": {"model_id": "1"}})),
        "stable_outputs: code cell 1 stores a widget's view",
    ),
    "long cell": (edit(1, "x = 2", "x = 2" + 14 * "\ny = 3"), "plain_code: code cell 1 has 16 lines"),
    "await": (edit(1, "x = 2", "await x"), "plain_code: code cell 1 uses await"),
    "Output": (edit(1, "x = 2", "out = widgets.Output()"), "plain_code: code cell 1 uses Output"),
    "clear_output": (
        edit(1, "x = 2", "clear_output(wait=True)"),
        "plain_code: code cell 1 uses clear_output",
    ),
    "updated display": (
        edit(1, "x = 2", "display(x, display_id='a')"),
        "plain_code: code cell 1 uses display_id",
    ),
    "pip": (edit(1, "x = 2", "!pip install x"), "plain_code: code cell 1: a notebook installs nothing"),
    "magic pip": (edit(1, "x = 2", "%pip install x"), "plain_code: code cell 1: a notebook installs nothing"),
    "live figures": (edit(1, "x = 2", "%matplotlib widget"), "plain_code: code cell 1: only inline"),
    "skipped": (edit(1, "x = 2", "# NBVAL_SKIP"), "plain_code: code cell 1: a skipped cell"),
    "skipped by a tag": (
        put("cells", 1, "metadata", {"tags": ["nbval-skip"]}),
        "plain_code: code cell 1: a skipped",
    ),
    "no assert": (edit(4, "assert x == 2", "x == 2"), "asserted: no assert"),
    "wrong number": (edit(0, "# 02", "# 2"), "opening: needs one H1, '# 02 · …'"),
    "two titles": (edit(3, "*A", "# Another\n\n*A"), "opening: needs one H1"),
    "no goals": (
        edit(0, "**What you will learn**", "Goals"),
        "opening: the first cell lacks **What you will learn**",
    ),
    "no prerequisites": (
        edit(0, "**Prerequisites**", "Needs"),
        "opening: the first cell lacks **Prerequisites**",
    ),
    "no run time": (edit(0, "about 3 s", "short"), "run_time: write '**Expected run time**"),
    "never measured": (put("metadata", "measured_seconds", None), "run_time: write"),
    "takes longer": (put("metadata", "measured_seconds", 6.1), "run_time: says about 3 s, took 6.1 s"),
    "takes shorter": (put("metadata", "measured_seconds", 1.4), "run_time: says about 3 s, took 1.4 s"),
    "takes too long": (put("metadata", "measured_seconds", 61.0), "run_time: took 61.0 s, more than 60"),
    "no caption": (edit(3, "*A picture of x.*", "**Bold** words."), "captions: cell 2 draws a figure"),
    "solution missing": (
        edit(5, "<details>", "<detail>"),
        "exercises: has exercises ['1', '2'] and 0 solutions",
    ),
    "one exercise": (edit(5, "**2.** And", "And"), "exercises: has exercises ['1'] and 2 solutions"),
    "broken solution": (edit(5, "print(x)", "print(x"), "exercises: a solution is not Python"),
    "dead link": (
        edit(3, "*A", "*See [it](../nowhere.md)*. *A"),
        "links: the link to ../nowhere.md leads nowhere",
    ),
    "no way on": (
        edit(6, " · **Next**: [03](03_third.ipynb)", ""),
        "links: the last cell links to ['01_first",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(sound, fault):
    change, expected = FAULTS[fault]
    notebook = copy.deepcopy(sound)
    change(notebook)
    assert any(wrong.startswith(expected) for wrong in lint(notebook)), lint(notebook)


def test_links_to_the_web_and_to_files_pass(sound):
    (sound.path.parent / "guide.md").write_text("# A")
    edit(3, "*A", "*See [a](guide.md#a), [b](https://arxiv.org/abs/2206.00364), [c](#c): a")(sound)
    assert lint(sound) == []


def test_building_drops_what_is_volatile_and_writes_time_and_links(tmp_path):
    v4 = nbformat.v4
    for name in ("01_first", "03_third"):
        notebook = v4.new_notebook(cells=[v4.new_markdown_cell(f"# {name}")])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    path = tmp_path / "02_second.ipynb"
    cells = [
        v4.new_markdown_cell(OPENING),
        v4.new_code_cell("import time\nt = time.process_time()\nx = 2\nprint(x)"),
        v4.new_code_cell("while time.process_time() < t + 0.3: pass\nassert x == 2"),
        v4.new_markdown_cell(EXERCISES.replace("print(x)", "assert x == 2\nx = 3")),
    ]
    notebook = v4.new_notebook(cells=cells)
    seconds = BUILD["execute"](notebook, tmp_path)
    assert 0.3 < seconds < 60
    notebook.metadata["widgets"] = {}
    BUILD["normalise"](notebook, 7.0)
    nbformat.write(notebook, path)
    BUILD["link"](BUILD["series"](tmp_path))
    assert lint(Notebook.read(path)) == []
    assert "about 6 s" in notebook.cells[0].source or "about 8 s" in notebook.cells[0].source
    assert "[01_first](01_first.ipynb)" in nbformat.read(path, 4).cells[-1].source
    before = path.read_bytes()
    BUILD["link"](BUILD["series"](tmp_path))
    assert path.read_bytes() == before


def test_pictures_are_packed_where_nobody_can_see_it():
    def png(picture):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    y, x = np.mgrid[:100, :200]
    many = png(Image.fromarray(np.stack([x, y + 50, 255 - x], -1).astype(np.uint8)))  # 20,000 colours
    assert BUILD["smaller"](many) == many
    curve = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(curve).line([(0, 0), (199, 99)], fill=(0, 114, 178), width=3)
    packed = BUILD["smaller"](png(curve))
    assert len(packed) < len(png(curve))
    seen = Image.open(io.BytesIO(base64.b64decode(packed)))
    assert seen.mode == "P"
    np.testing.assert_array_equal(seen.convert("RGB"), curve)


def test_a_time_that_is_about_right_stays():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(OPENING)])
    BUILD["normalise"](notebook, 4.0)
    assert "about 3 s" in notebook.cells[0].source


def test_a_wrong_solution_stops_the_building(tmp_path):
    wrong = EXERCISES.replace("print(x)", "assert x == 3")
    cells = [nbformat.v4.new_code_cell("x = 2"), nbformat.v4.new_markdown_cell(wrong)]
    with pytest.raises(Exception, match="AssertionError"):
        BUILD["execute"](nbformat.v4.new_notebook(cells=cells), tmp_path)
