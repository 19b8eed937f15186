import pytest

from diffusion_lab.config import compose, validate


@pytest.fixture(scope="session")
def toy_config(toy_overrides):
    """Checked config of a tiny training into a folder, with further overrides."""

    def config(folder, *overrides):
        own = [f"system.output={folder}", "training.max_steps=12", "diagnostics.checkpoint_every_n_steps=5"]
        return validate(compose([*toy_overrides, *own, *overrides]))

    return config
