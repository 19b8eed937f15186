"""What holds without anemoi-models; the rest is `tests/peers/suite_anemoi_models.py`."""

import sys

import pytest
import torch

from diffusion_lab.inference.anemoi import from_anemoi


class Boom:
    """Unpickling this is seen."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of the checkpoint ran')",)


def test_no_checkpoint_is_unpickled_unless_trusted(tmp_path, toy_store):
    path = tmp_path / "inference-last.ckpt"
    torch.save(Boom(), path)
    with pytest.raises(ValueError, match=r"inference-last.ckpt is a pickle: .*trust=True"):
        from_anemoi(path, toy_store)
    with pytest.raises(FileNotFoundError, match=r"no Anemoi checkpoint '.*none.ckpt'"):
        from_anemoi(tmp_path / "none.ckpt", toy_store, trust=True)


def test_without_the_peer_the_error_names_the_command(monkeypatch, toy_store):
    monkeypatch.setitem(sys.modules, "anemoi", None)
    with pytest.raises(
        ImportError, match=r"needs anemoi-models, but .*: pip install anemoi-models==0\.13\.0"
    ):
        from_anemoi(torch.nn.Linear(1, 1), toy_store)
