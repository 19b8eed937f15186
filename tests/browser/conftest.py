"""JupyterLab and the app on localhost, seen through a real browser: Chromium without a window.

The servers are started by the command that users type, with settings of their own in a temporary folder, so
nothing on the machine is read or changed. Where there is no Chromium the tests are skipped.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import driving
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",  # in containers there is none to be had
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
# Quiet, and with every cell in the page, whether scrolled to or not.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
PATIENCE = 120  # seconds: for a slow machine, not for a slow widget


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                reason = "no Chromium: `apt-get install chromium`, or name one in the variable CHROMIUM"
                item.add_marker(pytest.mark.skip(reason=reason))


@contextlib.contextmanager
def serving(words, folder, port, answers_at):
    """Run `diffusion-lab lab` in a folder; yields once the address answers."""
    private = folder / "private"
    labconfig = private / "config" / "labconfig"
    labconfig.mkdir(parents=True)
    (labconfig / "default_setting_overrides.json").write_text(json.dumps(SETTINGS))
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {name: str(private / place) for name, place in places.items()}
    command = [sys.executable, "-m", "diffusion_lab", "lab", "--no-browser", f"--port={port}", *words]
    with open(private / "log", "w+") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(answers_at):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(command)} does not answer:\n{log.read()[-4000:]}")
                time.sleep(0.2)
            yield
        finally:
            server.terminate()  # the server ends its kernels
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _answers(address):
    with contextlib.suppress(OSError):
        urllib.request.urlopen(address, timeout=10).read()
        return True
    return False


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page of 1280 pixels; the test fails if a script of the page did."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """The folder and address of a running JupyterLab."""
    folder, port, token = tmp_path_factory.mktemp("lab"), free_port(), secrets.token_hex(8)
    (folder / "notebooks").mkdir()
    options = [
        "--allow-root",
        "--ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",  # as window.jupyterapp
        "--ServerApp.terminals_enabled=False",
    ]
    address = f"http://127.0.0.1:{port}"
    with serving(["--notebooks=notebooks", "--", *options], folder, port, f"{address}/api?token={token}"):
        yield folder / "notebooks", address, token


@pytest.fixture
def notebook(lab, page):
    """`notebook(source, …)` opens a notebook of these cells, runs them all and gives the page."""
    folder, address, token = lab

    def ran(*sources):
        name = f"{secrets.token_hex(4)}.ipynb"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [new_code_cell(source) for source in sources]
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
        page.goto(f"{address}/doc/tree/{name}?token={token}")
        driving.run_all_cells(page)
        return page

    yield ran
    page.evaluate("() => window.jupyterapp?.shell.currentWidget?.context.sessionContext.shutdown()")
