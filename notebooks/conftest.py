"""Every notebook is a test; `pytest -m "not notebooks"` leaves them out."""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # for the kernels: as in build.py, so that sums are the same


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.notebooks)
