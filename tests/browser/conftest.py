"""Where there is no Chromium, the tests in a browser are skipped."""

import contextlib
from pathlib import Path

import driving
import harness
import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if harness.CHROMIUM is None:
                reason = "no Chromium: `apt-get install chromium`, or name one in the variable CHROMIUM"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chromium():
    with harness.browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """The folder of the notebooks, the address and the token of a running JupyterLab."""
    folder = tmp_path_factory.mktemp("lab")
    with harness.running_lab(folder) as (address, token):
        yield folder / "notebooks", address, token


@pytest.fixture(scope="module")
def open_notebook(lab, chromium):
    """`open_notebook(source, …)` opens a notebook of these cells in JupyterLab, runs them, gives the page."""
    folder, address, token = lab
    with contextlib.ExitStack() as opened:

        def run(*sources):
            page = opened.enter_context(harness.new_page(chromium))
            page.goto(f"{address}/doc/tree/{harness.write_notebook(folder, *sources)}?token={token}")
            driving.run_all_cells(page)
            opened.callback(page.evaluate, f"() => {driving.SESSION}.shutdown()")
            return page

        yield run


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of the tuner as an app, with its token, and a function for the ids of its kernels."""
    with harness.running_app(tmp_path_factory.mktemp("app")) as (address, kernels):
        yield address, kernels


@pytest.fixture(scope="module")
def app(chromium, tmp_path_factory):
    """The page of the tuner as an app, and the folder where its command was given."""
    folder = tmp_path_factory.mktemp("app")
    with harness.running_app(folder) as (address, _), harness.new_page(chromium) as page:
        page.goto(address)
        yield page, folder
