"""Seeded mutations of stores, recipes and release files: each is read, or refused by name.

A few run with the other tests; more with `FUZZ=1000 pytest -n0 tests/test_fuzz.py`.
"""

import contextlib
import json
import os
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import yaml
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file

from diffusion_lab.inference.release import load_release
from diffusion_lab.making import create_store
from diffusion_lab.making.create import create_from_recipe
from diffusion_lab.making.recipes import load_recipe
from diffusion_lab.stores.inspect import describe_store
from diffusion_lab.stores.store import open_store

BUDGET = int(os.environ.get("FUZZ", 25))
REFUSED = (ValueError, KeyError, FileNotFoundError)
JUNK = (None, True, -1, 0, 3, 1e300, float("nan"), "", "x", "2001-01-05", [], ["x"], [[]], {}, {"x": 1})


def nodes(tree, path=()):
    """Paths to all values in nested dictionaries and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from nodes(value, (*path, key))


def mutate_tree(tree, rng):
    """Replace, remove or rename one value of a nested document."""
    paths = list(nodes(tree))
    *parents, key = paths[rng.integers(len(paths))]
    for parent in parents:
        tree = tree[parent]
    how = rng.integers(4)
    if how == 0:
        del tree[key]
    elif how == 1 and isinstance(tree, dict):
        tree[f"{key}x"] = tree.pop(key)
    else:
        tree[key] = JUNK[rng.integers(len(JUNK))]


def mutate_bytes(file, rng):
    """Cut a file, change some of its bytes, fill it with zeros or remove it."""
    content = bytearray(file.read_bytes())
    how = rng.integers(5)
    if how == 0:
        file.unlink()
        return
    if how == 1:
        content = content[: rng.integers(len(content) + 1)]
    elif how == 2:
        content = bytearray(len(content))
    else:
        for at in rng.integers(0, max(len(content), 1), 1 + rng.integers(4)):
            if content:
                content[at] = rng.integers(256)
    file.write_bytes(bytes(content))


@contextlib.contextmanager
def read_or_refused(*names):
    """Anything else that is raised is a fault, and so is an error that names none of `names`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # what damaged numbers overflow to is not looked at
            yield
    except REFUSED as error:
        assert any(name in str(error) for name in names), error


@pytest.fixture(scope="module")
def rng_of():
    return lambda kind, seed: np.random.default_rng([kind, seed])


@pytest.mark.parametrize("seed", range(BUDGET))
def test_stores(tmp_path, metadata, fields, rng_of, seed):
    path, rng = tmp_path / "mutated.zarr", rng_of(1, seed)
    create_store(path, replace(metadata, tendency_leads=["6h"]), lambda block: fields[block], chunk_times=10)
    if rng.integers(2):
        (path / ".zmetadata").unlink()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = files[rng.integers(len(files))]
    if file.name.startswith(".z") and rng.integers(3):
        document = json.loads(file.read_text())
        mutate_tree(document, rng)
        file.write_text(json.dumps(document))
    else:
        mutate_bytes(file, rng)
    with read_or_refused("mutated.zarr"):
        store = open_store(path)
        store.read(slice(None))
        with open(os.devnull, "w") as out:
            Console(file=out).print(describe_store(store))
        store.to_xarray()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    values = np.random.default_rng(0).normal(280, 5, (12, 2, 3, 4)).astype(np.float32)
    coordinates = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(12) * np.timedelta64(1, "D"),
        "level": [500, 850],
        "latitude": [50.0, 40.0, 30.0],
        "longitude": [0.0, 10.0, 20.0, 30.0],
    }
    dataset = xr.Dataset(
        {"z": (tuple(coordinates), values), "t": (("time", "latitude", "longitude"), values[:, 0])}
    )
    dataset.assign_coords(coordinates).to_netcdf(folder / "source.nc")
    return folder / "source.nc"


@pytest.mark.parametrize("seed", range(BUDGET))
def test_recipes(tmp_path, source, rng_of, seed):
    file, rng = tmp_path / "recipe.yaml", rng_of(2, seed)
    document = {
        "description": "d",
        "source": [str(source)],
        "coordinates": {"time": "time", "latitude": "latitude", "longitude": "longitude"},
        "dates": {"start": "2001-01-01", "end": "2001-01-12", "frequency": "1d", "missing": ["2001-01-05"]},
        "statistics": {"start": "2001-01-01", "end": "2001-01-08", "tendencies": ["1d"]},
        "variables": {"t": {"variable": "t", "role": "diagnostic"}, "z500": {"variable": "z", "level": 500}},
        "constants": {"zs": {"variable": "z", "level": 850, "units": "m", "allow_nan": True}},
        "forcings": ["cos_latitude", "insolation"],
        "select": {"number": 0} if rng.integers(4) == 0 else {},
        "dates_per_chunk": 4,
    }
    keys = {str(key) for path in nodes(document) for key in path if isinstance(key, str) and len(key) > 1}
    for _ in range(1 + rng.integers(2)):
        mutate_tree(document, rng)
    file.write_text(yaml.safe_dump(document))
    if rng.integers(5) == 0:
        mutate_bytes(file, rng)
    with read_or_refused("recipe.yaml", "source.nc", "s.zarr", *keys):
        create_from_recipe(load_recipe(file), tmp_path / "s.zarr")


@pytest.mark.parametrize("seed", range(BUDGET))
def test_release_files(tmp_path, checkpoint, rng_of, seed):
    path, rng = tmp_path / "mutated.safetensors", rng_of(3, seed)
    if rng.integers(3) == 0:
        shutil.copy(checkpoint, path)
        mutate_bytes(path, rng)
    else:
        with safe_open(checkpoint, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            document = json.loads(file.metadata()["diffusion_lab"])
        for _ in range(1 + rng.integers(2)):
            mutate_tree(document, rng)
        save_file(tensors, path, {"diffusion_lab": json.dumps(document)})
    with read_or_refused("mutated.safetensors"):
        load_release(path)
