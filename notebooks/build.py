"""Rebuild notebooks: execute them from top to bottom and write them back as they are committed.

    python notebooks/build.py                      # all of the series
    python notebooks/build.py 03_preconditioning   # those whose names start so

Each runs in a fresh kernel and keeps its outputs; what differs from run to run without meaning anything
(times of execution, widget state, random cell ids) is dropped, and pictures are packed. Two lines are
written for the author: the expected run time, from the CPU time measured, and the links to the notebooks
before and after. The code in the folded solutions is run too, after the rest, so that no solution is wrong;
what it prints is not kept.
"""

import argparse
import base64
import io
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image, ImageChops, ImageStat

FOLDER = Path(__file__).parent
CELL_TIMEOUT = 900  # seconds on the wall, of which a busy machine needs many
TIMES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60)
RUN_TIME = re.compile(r"(\*\*Expected run time\*\*: about )(\d+)( s on two CPU cores)")
SOLUTION = re.compile(r"<details>.*?</details>", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
# The kernel's own CPU time with that of the processes it started: unlike the clock on the wall, it is the
# same on a busy machine.
MEASURE = "import os; print(sum(os.times()[:4]))"


def series(folder: Path = FOLDER) -> list[Path]:
    """The notebooks, in their order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def execute(notebook: NotebookNode, folder: Path) -> float:
    """Run all cells, then the solutions; return the CPU time of the cells in seconds."""
    cells = notebook.cells
    extra = [nbformat.v4.new_code_cell(source) for source in (MEASURE, *solutions(notebook))]
    notebook.cells = [*cells, *extra]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    notebook.cells = cells
    return float(extra[0].outputs[0].text)


def solutions(notebook: NotebookNode) -> list[str]:
    """The Python code of the folded solutions."""
    folded = [block for cell in notebook.cells for block in SOLUTION.findall(cell.source)]
    return [code for block in folded for code in CODE.findall(block)]


def normalise(notebook: NotebookNode, seconds: float) -> None:
    """Leave only what has a meaning, in place: stable ids, no timing, no widget state."""
    stated = RUN_TIME.search(notebook.cells[0].source)
    if stated and not seconds / 1.5 < int(stated[2]) < seconds * 1.5:
        nearest = min(TIMES, key=lambda t: max(t / seconds, seconds / t))
        notebook.cells[0].source = RUN_TIME.sub(rf"\g<1>{nearest}\g<3>", notebook.cells[0].source)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
        measured_seconds=round(seconds, 1),
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k == "tags"})
        cell.source = cell.source.strip("\n")
        for output in cell.get("outputs", []):
            # Without its state, a widget's view is an error message; its text or picture is left.
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])


def smaller(png: str) -> str:
    """A picture (base64) in 256 colours of its own, a third of the size, where no difference can be seen.

    Curves are left with 0.1 of 255 of error in the mean; maps in several colour scales stay as they are.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    few = flat.quantize(256, dither=Image.Dither.NONE)
    if max(ImageStat.Stat(ImageChops.difference(flat, few.convert("RGB"))).mean) > 0.5:
        return png
    packed = io.BytesIO()
    few.save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def link(paths: list[Path]) -> None:
    """Write the last line of each notebook: links to its neighbours in the series."""
    notebooks = {path: nbformat.read(path, as_version=4) for path in paths}
    titles = {
        path: notebook.cells[0].source.split("\n")[0].removeprefix("# ")
        for path, notebook in notebooks.items()
    }
    for i, path in enumerate(paths):
        neighbours = {"Previous": paths[i - 1 : i], "Next": paths[i + 1 : i + 2]}
        line = " · ".join(
            f"**{name}**: [{titles[near]}]({near.name})"
            for name, found in neighbours.items()
            for near in found
        )
        cells = notebooks[path].cells
        kept = [cell for cell in cells if not cell.source.startswith(("**Previous**:", "**Next**:"))]
        if line:
            kept.append(nbformat.v4.new_markdown_cell(line, id=f"cell-{len(kept):02d}"))
        if kept != cells:
            notebooks[path].cells = kept
            nbformat.write(notebooks[path], path)


def main(names: list[str]) -> None:
    """Execute and normalise the notebooks named, or all, and refresh the links of the series."""
    os.environ["OMP_NUM_THREADS"] = "1"  # as in the tests: sums are the same, whatever the machine
    chosen = [path for path in series() if not names or path.name.startswith(tuple(names))]
    if not chosen:
        sys.exit(
            f"no notebook starts with {', '.join(names)}; there are {', '.join(p.stem for p in series())}"
        )
    for path in chosen:
        notebook = nbformat.read(path, as_version=4)
        seconds = execute(notebook, FOLDER)
        normalise(notebook, seconds)
        nbformat.write(notebook, path)
        print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1e3:.0f} kB", flush=True)
    link(series())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="start of a notebook's name; all if none")
    main([Path(name).name for name in parser.parse_args().names])
