"""JupyterLab and the app on localhost, seen through a real browser: Chromium without a window.

The servers are started by the command that users type, with settings of their own in a temporary folder, so
nothing on the machine is read or changed.
"""

import contextlib
import json
import os
import queue
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

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
PATIENCE = 300  # seconds: for a slow machine, not for a slow widget


@contextlib.contextmanager
def serving(words, folder, port):
    """Run `diffusion-lab lab` in a folder; yields once it listens on the port."""
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
            while not _listens(port):
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


def _listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10):
        return True
    return False


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running_lab(folder):
    """JupyterLab on `folder / "notebooks"`; yields its address and token."""
    port, token = free_port(), secrets.token_hex(8)
    (folder / "notebooks").mkdir()
    options = [
        "--allow-root",
        "--ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",  # as window.jupyterapp
        "--ServerApp.terminals_enabled=False",
    ]
    with serving(["--notebooks=notebooks", "--", *options], folder, port):
        yield f"http://127.0.0.1:{port}", token


@contextlib.contextmanager
def running_app(folder):
    """The tuner as an app, its command given in `folder`.

    Yields its address, with the token that it made, and a function for the ids of the kernels that run.
    """
    port = free_port()
    with serving(["--tuner", "--", "--Voila.ip=127.0.0.1"], folder, port):
        log = folder / "private" / "log"
        deadline = time.monotonic() + PATIENCE
        while not (address := re.search(r"http://127.0.0.1:\d+/\?token=\w+", log.read_text())):
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)

        def kernels():
            text = log.read_text()
            return set(re.findall(r"Kernel started: (\S+)", text)) - set(
                re.findall(r"Kernel shutdown: (\S+)", text)
            )

        yield address[0], kernels


@contextlib.contextmanager
def browser():
    """Chromium without a window."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def new_page(chromium):
    """A page of 1280 pixels, with the errors of its scripts in `page.errors`."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    context.close()


def write_notebook(folder, *sources):
    """Write a notebook of code cells; returns its name."""
    name = f"{secrets.token_hex(4)}.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [new_code_cell(source.strip()) for source in sources]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    return name


@contextlib.contextmanager
def slow(address, seconds):
    """The server at an address over a connection that takes so many seconds each way; yields its address."""
    host, port = address.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on(source, target):
        """What comes is sent on so much later, in order."""
        waiting = queue.SimpleQueue()

        def send():
            with contextlib.suppress(OSError):
                while (item := waiting.get())[1]:
                    time.sleep(max(0.0, item[0] - time.monotonic()))
                    target.sendall(item[1])
                target.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        data = b"begin"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + seconds, data))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pass_on, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
