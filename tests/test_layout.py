"""How the package is laid out: what imports what, and that the files which say so agree."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

import diffusion_lab

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "diffusion_lab"
CORE = ["schedules", "samplers", "denoisers", "noise", "analytic"]
HEAVY = [
    "dask",
    "h5netcdf",
    "hydra",
    "ipywidgets",
    "lightning",
    "matplotlib",
    "omegaconf",
    "pandas",
    "pydantic",
    "safetensors",
    "scipy",
    "scores",
    "torch_geometric",
    "xarray",
    "zarr",
]

# From the ground up: a room imports what stands before it, never what stands after it. No exceptions.
ROOMS = [
    "assets",
    "spelling",
    "schedules",
    "noise",
    "denoisers",
    "samplers",
    "analytic",
    "guidance",
    "objectives",
    "graphs",
    "models",
    "acceleration",
    "stores",
    "sampling",
    "inference",
    "verification",
    "plots",
    "config",
    "training",
    "making",
    "widgets",
    "commands",
]


def imported_modules(script):
    """The top-level modules that a fresh Python has loaded after a script."""
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{script}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.splitlines()[-1].split())


@cache
def modules():
    """The syntax tree of each module of the package, by its dotted name."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text())
    return trees


@cache
def imports():
    """The modules of the package that each module imports, wherever in its code, for types or at run time."""
    found = {name: set() for name in modules()}
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & modules().keys()
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute"
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    found[name] |= {full if full in modules() else node.module} & modules().keys()
    return found


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_the_core_imports_nothing_heavier_than_torch():
    core = "\n".join(f"import diffusion_lab.{name}" for name in CORE)
    loaded = imported_modules(core)
    assert {"torch", "numpy"} <= loaded
    assert not loaded & set(HEAVY)


def test_a_forecaster_is_imported_without_what_reads_and_writes_files():
    """`torch` is most of the time that this import takes."""
    loaded = imported_modules("from diffusion_lab.inference import load_forecaster")
    assert not loaded & set(HEAVY)


def test_networks_are_built_without_numba():
    """It serves the loops of a CPU; machines with accelerators need not have it."""
    imported_modules("import sys\nsys.modules['numba'] = None\nimport diffusion_lab.models.blocks")


def test_a_forecaster_is_at_hand_soon():
    """What takes long to import waits for its first use: graphs, Numba's loops, labelled data."""
    loaded = imported_modules("from diffusion_lab.inference import load_forecaster")
    assert not loaded & {"torch_geometric", "numba", "scipy", "xarray", "pandas", "lightning"}


def test_importing_the_package_and_asking_for_help_load_not_even_torch():
    loaded = imported_modules(
        "import diffusion_lab, contextlib, io\n"
        "from diffusion_lab.commands.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['train', '--help'])"
    )
    assert not loaded & {"torch", "lightning", "matplotlib", "hydra", "torch_geometric", "ipywidgets"}


def test_every_room_has_its_place():
    assert {room(name) for name in modules()} - {"", "__main__"} == set(ROOMS)


def test_rooms_import_only_what_stands_before_them():
    order = {name: i for i, name in enumerate(["", *ROOMS, "__main__"])}
    upwards = {
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if name != "diffusion_lab" and order[room(other)] > order[room(name)]
    }
    assert upwards == set()


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter(imports()).prepare()  # CycleError names the circle


def test_no_test_imports_a_conftest():
    """There are several of that name, and which one is imported depends on what was collected before."""
    trees = {path: ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    importers = {
        path.name
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and node.module == "conftest")
        or (isinstance(node, ast.Import) and "conftest" in {alias.name for alias in node.names})
    }
    assert not importers


def test_modules_can_be_held_in_the_head():
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.name: n for path, n in lengths.items() if n > 400} == {}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_environment_is_what_the_project_says(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    plain = [entry for entry in environment if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment if isinstance(entry, dict)]
    # One version, for the newest Python has no wheels of some dependencies for months.
    (python,) = [re.fullmatch(r"python=3\.(\d+)", entry)[1] for entry in plain if entry.startswith("python")]
    assert int(python) >= int(project["project"]["requires-python"].removeprefix(">=3."))
    assert "pip" in plain
    assert "-e .[dev]" in pip
    assert "dev" in project["project"]["optional-dependencies"]


def test_changelog_and_citation_are_of_this_version():
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == diffusion_lab.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == diffusion_lab.__version__


def test_commands_and_packages_of_the_project_exist(project):
    module, function = project["project"]["scripts"]["diffusion-lab"].split(":")
    assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    assert f"def {function}(" in (ROOT / (module.replace(".", "/") + ".py")).read_text()
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert all((ROOT / path).exists() for path in included)


SPELLED = {"torch-geometric": "torch_geometric", "hydra-core": "hydra", "pyyaml": "yaml", "pillow": "PIL"}


def named(requirements):
    """The modules of requirements such as "hydra-core>=1.3"."""
    names = (re.match(r"[\w-]+", requirement)[0] for requirement in requirements)
    return {SPELLED.get(name, name) for name in names}


def imported_by(paths):
    """The third-party modules that files import, wherever in their code."""
    imported = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    return imported - set(sys.stdlib_module_names) - {"diffusion_lab"}


def test_dependencies_are_those_that_are_imported(project):
    """Nothing is imported that pyproject does not name, and nothing named that is not used."""
    required = named(project["project"]["dependencies"])
    third_party = imported_by(PACKAGE.rglob("*.py")) - {"anemoi", "jcm", "jax", "cfgrib", "gcsfs"}  # optional
    assert third_party - required == {"pydantic_core"}  # of pydantic, which wants one version of it
    # Used through others (xarray's engines and calendars, Lightning's logger) or started by a command.
    through_others = {"cftime", "dask", "h5netcdf", "h5py", "tensorboard", "jupyterlab", "ipywidgets"}
    assert required - third_party <= through_others


def test_dependencies_of_the_tests_and_notebooks_are_those_that_they_import(project):
    required = named(project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"])
    files = {path for folder in ("tests", "notebooks", "docs") for path in (ROOT / folder).rglob("*.py")}
    ours = {path.stem for path in files}
    files -= set((ROOT / "tests" / "peers").iterdir())  # they run in environments of their own
    assert imported_by(files) - ours - required == set()
