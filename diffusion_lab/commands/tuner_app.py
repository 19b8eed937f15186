"""The sampler tuner as an app: Voilà with a token, without other hosts, and with kernels that end."""

from __future__ import annotations

import os
import tempfile
import threading
import webbrowser
from pathlib import Path
from typing import Any

from traitlets.config import Config
from voila.app import Voila

DEFAULTS = {
    "Voila": {"auto_token": True},  # loopback alone lets in every user of the machine
    # Kernels whose page went away without a word, as when a browser crashes.
    "MappingKernelManager": {"cull_idle_timeout": 900, "cull_interval": 60},
}


class TunerApp(Voila):
    """Voilà for one notebook; its options are Voilà's own."""

    def initialize(self, argv: list[str] | None = None) -> None:
        """Read the options and put our page before Voilà's."""
        self.update_config(Config(DEFAULTS))
        super().initialize(argv)
        self.voila_configuration.prelaunch_hook = _give_xsrf_cookie
        self.template_paths.insert(0, str(Path(__file__).with_name("tuner_page")))

    def launch_browser(self) -> None:
        """Open the page by a file that others cannot read: a command line shows them the token."""
        token = self.identity_provider.token
        address = f"{self.connection_url}?token={token}" if token else self.connection_url
        descriptor, path = tempfile.mkstemp(suffix=".html")
        with os.fdopen(descriptor, "w") as file:
            file.write(f'<meta http-equiv="refresh" content="0; url={address}">')
        opened = webbrowser.get(self.browser or None).open
        threading.Thread(target=opened, args=(Path(path).as_uri(), self.webbrowser_open_new)).start()


def _give_xsrf_cookie(handler: Any, **notebook: Any) -> None:
    """Set the cookie without which the page may not end its kernel when it closes."""
    _ = handler.xsrf_token
