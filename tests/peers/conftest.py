"""The peers' Pythons, and how to run them."""

import subprocess
from pathlib import Path

import pytest
from peer_environments import PEER_SECONDS, environment, run


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.peers)


@pytest.fixture(scope="session")
def anemoi_models():
    """A Python with anemoi-models and anemoi-graphs beside everything of ours."""
    return environment("models")


@pytest.fixture(scope="session")
def anemoi_datasets():
    """A Python with anemoi-datasets and its zarr 2; of our packages only those it agrees with."""
    return environment("datasets")


@pytest.fixture(scope="session")
def run_peer():
    """Run a peer's Python in our checkout; a failure shows the end of all it printed."""

    def run_or_fail(python, *arguments):
        words = " ".join(map(str, arguments))
        try:
            status, output = run([python, *arguments], PEER_SECONDS)
        except subprocess.TimeoutExpired as error:
            pytest.fail(f"{words}\nwas not done after {error.timeout:.0f} s", pytrace=False)
        if status:
            pytest.fail(f"{words}\n{output[-6000:]}", pytrace=False)
        return output

    return run_or_fail
