"""What ships with the package: example stores and released checkpoints, found by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

_FOLDER = Path(str(files("diffusion_lab"))) / "assets"


def stores() -> dict[str, Path]:
    """Shipped stores by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.zarr"))}


def checkpoints() -> dict[str, Path]:
    """Released checkpoints by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"), key=lambda path: path.stem)}


def store_path(name: str) -> str:
    """The path of a shipped store; anything else is taken for a path or URL itself."""
    return str(stores().get(name, name))
