"""What is wrong with a notebook of the series, read as JSON: nothing is executed.

nbval compares what a notebook prints with what it printed when it was committed, but it has gaps (0.11): a
cell without an execution count is never compared, nor is an image; a cell can ask to be skipped; outputs that
are replaced or carry addresses or random ids never agree. Each rule here closes a gap, or keeps the series'
form. A rule takes a `Notebook` and yields what is wrong, in words.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_LINES = 15
MAX_SECONDS = 60
MAX_SERIES_BYTES = 6_000_000
GOALS, RUN_TIME, PREREQUISITES = "**What you will learn**", "**Expected run time**", "**Prerequisites**"
FORBIDDEN_NAMES = {
    "await": "top-level await does not run in nbval",
    "Output": "an Output widget swallows what nbval should compare",
    "clear_output": "nbval compares what was cleared, too",
    "display_id": "nbval cannot follow a display that is updated",
    "update_display": "nbval cannot follow a display that is updated",
}
FORBIDDEN_MAGICS = {
    r"^\s*[!%]\s*(pip|conda|mamba)\b": "a notebook installs nothing",
    r"^\s*%matplotlib\s+(?!inline\s*$)": "only inline figures are stored",
    r"NBVAL_SKIP|nbval-skip": "a skipped cell is never run",
}
VOLATILE = {
    r"\b0x[0-9a-fA-F]{6,}\b": "a memory address",
    r"\bxr-wrap\b": "xarray's HTML, whose ids are random (display_style='text')",
    r"(?<![\w.:/<])(/[\w.-]+){3,}": "a path of one machine",
}
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


@dataclass
class Notebook:
    """A notebook file and its content."""

    path: Path
    content: dict

    @classmethod
    def read(cls, path: Path) -> "Notebook":
        """Parse the file."""
        return cls(path, json.loads(path.read_text(encoding="utf-8")))

    @property
    def cells(self) -> list[dict]:
        """All cells."""
        return self.content["cells"]

    @property
    def code(self) -> list[dict]:
        """The code cells."""
        return [cell for cell in self.cells if cell["cell_type"] == "code"]

    @property
    def prose(self) -> str:
        """All markdown, without its code blocks."""
        texts = [source(cell) for cell in self.cells if cell["cell_type"] == "markdown"]
        return FENCE.sub("", "\n\n".join(texts))

    @property
    def number(self) -> str:
        """NN of NN_name.ipynb."""
        return self.path.name[:2]


def source(cell: dict) -> str:
    """A cell's text."""
    return "".join(cell["source"])


def texts(cell: dict) -> Iterator[str]:
    """All text that a code cell has put out."""
    for output in cell["outputs"]:
        yield "".join(output.get("text", ""))
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield "".join(value)


def names(code: str) -> set[str]:
    """Identifiers and keywords of a cell, without its comments, strings and magics."""
    plain = "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines())
    return {
        t.string for t in tokenize.generate_tokens(io.StringIO(plain).readline) if t.type == tokenize.NAME
    }


def executed(notebook: Notebook) -> Iterator[str]:
    """Every cell was run, once, from the top: counts 1 … N; nbval never compares a cell without one."""
    counts = [cell["execution_count"] for cell in notebook.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1 … {len(counts)}"
    if not any(cell["outputs"] for cell in notebook.code):
        yield "no cell has an output: a stripped notebook checks nothing"


def clean_metadata(notebook: Notebook) -> Iterator[str]:
    """No widget state, no times, the plain kernel, ids by position: what `build.py` leaves."""
    expected = {"kernelspec", "language_info", "measured_seconds"}
    if set(notebook.content["metadata"]) != expected:
        yield f"metadata has {sorted(notebook.content['metadata'])}, not {sorted(expected)}"
    if notebook.content["metadata"].get("language_info") != {"name": "python"}:
        yield "language_info is not just the language's name"
    for i, cell in enumerate(notebook.cells):
        if cell.get("id") != f"cell-{i:02d}" or set(cell["metadata"]) - {"tags"}:
            yield f"cell {i} has id {cell.get('id')}, metadata {cell['metadata']}"


def stable_outputs(notebook: Notebook) -> Iterator[str]:
    """Outputs that are the same in every run, on every machine; no warnings, no errors."""
    for i, cell in enumerate(notebook.code, 1):
        for text in texts(cell):
            for pattern, what in VOLATILE.items():
                if re.search(pattern, text):
                    yield f"code cell {i} puts out {what}"
        for output in cell["outputs"]:
            if output.get("name") == "stderr" or output["output_type"] == "error":
                yield f"code cell {i} writes to stderr or fails"
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                yield f"code cell {i} stores a widget's view, which is an error message without its state"


def plain_code(notebook: Notebook) -> Iterator[str]:
    """Short cells, none of what nbval cannot follow."""
    for i, cell in enumerate(notebook.code, 1):
        code = source(cell)
        if len(code.splitlines()) > MAX_LINES:
            yield f"code cell {i} has {len(code.splitlines())} lines, more than {MAX_LINES}"
        for name in sorted(FORBIDDEN_NAMES.keys() & names(code)):
            yield f"code cell {i} uses {name}: {FORBIDDEN_NAMES[name]}"
        tags = " ".join(cell["metadata"].get("tags", []))
        for pattern, why in FORBIDDEN_MAGICS.items():
            if re.search(pattern, f"{code}\n{tags}", re.MULTILINE):
                yield f"code cell {i}: {why}"


def asserted(notebook: Notebook) -> Iterator[str]:
    """Claims are checked: somewhere there is an assert."""
    if not any("assert" in names(source(cell)) for cell in notebook.code):
        yield "no assert: nothing that is claimed is checked"


def opening(notebook: Notebook) -> Iterator[str]:
    """The first cell: one H1 with the number, the goals, the run time, what is needed."""
    first = source(notebook.cells[0])
    headings = re.findall(r"^# .*", notebook.prose, re.MULTILINE)
    if len(headings) != 1 or not first.startswith(f"# {notebook.number} · "):
        yield f"needs one H1, '# {notebook.number} · …', at the top; has {headings}"
    for part in (GOALS, RUN_TIME, PREREQUISITES):
        if part not in first:
            yield f"the first cell lacks {part}"


def run_time(notebook: Notebook) -> Iterator[str]:
    """The time stated is that measured by `build.py`, within a factor of 2, and below a minute."""
    stated = re.search(
        r"\*\*Expected run time\*\*: about (\d+) s on two CPU cores", source(notebook.cells[0])
    )
    measured = notebook.content["metadata"].get("measured_seconds")
    if not stated or not measured:
        yield "write '**Expected run time**: about N s on two CPU cores' and run notebooks/build.py"
    elif not measured / 2 <= int(stated[1]) <= measured * 2:
        yield f"says about {stated[1]} s, took {measured} s"
    if measured and measured > MAX_SECONDS:
        yield f"took {measured} s, more than {MAX_SECONDS}"


def captions(notebook: Notebook) -> Iterator[str]:
    """After each figure a cell that begins with its caption, in italics."""
    for i, cell in enumerate(notebook.cells):
        drawn = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        below = notebook.cells[i + 1] if i + 1 < len(notebook.cells) else None
        if drawn and not (below and re.match(r"\*[^*\s]", source(below))):
            yield f"cell {i} draws a figure, but the next does not begin with *a caption*"


def exercises(notebook: Notebook) -> Iterator[str]:
    """Two to four exercises, each with its folded solution, whose code is Python."""
    _, _, text = "\n\n".join(map(source, notebook.cells)).partition("\n## Exercises\n")
    asked = re.findall(r"^\*\*(\d)\.\*\* ", text, re.MULTILINE)
    folded = re.findall(r"<details><summary>Solution</summary>\n\n.+?\n\n</details>", text, re.DOTALL)
    if asked != [str(n) for n in range(1, len(folded) + 1)] or not 2 <= len(folded) <= 4:
        yield (
            f"has exercises {asked} and {len(folded)} solutions, not two to four below '## Exercises', as "
            "'**1.** …' and '<details><summary>Solution</summary>', an empty line, …, '</details>'"
        )
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        try:
            ast.parse(code)
        except SyntaxError as error:
            yield f"a solution is not Python: {error}"


def links(notebook: Notebook) -> Iterator[str]:
    """Relative links lead to files; the last cell links to the neighbours in the series."""
    targets = LINK.findall(notebook.prose)
    for target in targets:
        file = target.partition("#")[0]
        if file and "://" not in file and not (notebook.path.parent / file).exists():
            yield f"the link to {target} leads nowhere"
    series = sorted(path.name for path in notebook.path.parent.glob("[0-9][0-9]_*.ipynb"))
    i = series.index(notebook.path.name)
    last = LINK.findall(source(notebook.cells[-1]))
    if last != series[max(i - 1, 0) : i] + series[i + 1 : i + 2]:
        yield f"the last cell links to {last}, not to the neighbours: run notebooks/build.py"


RULES: tuple[Callable[[Notebook], Iterator[str]], ...] = (
    executed,
    clean_metadata,
    stable_outputs,
    plain_code,
    asserted,
    opening,
    run_time,
    captions,
    exercises,
    links,
)


def lint(notebook: Notebook) -> list[str]:
    """All that is wrong."""
    return [f"{rule.__name__}: {wrong}" for rule in RULES for wrong in rule(notebook)]
