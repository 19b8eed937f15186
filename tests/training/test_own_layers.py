"""A norm of the user's own in every block, from the config to a forecast."""

import pytest
import torch
from lightning.pytorch import Callback

from diffusion_lab.acceleration import accelerate
from diffusion_lab.training.build import build
from diffusion_lab.training.fit import fit
from diffusion_lab.training.release import export_release, own_parts, run_forecaster

OWN = """
from torch import nn

class RMSNorm(nn.Module):
    def __init__(self, normalized_shape, condition_shape):
        super().__init__()
        self.gain = nn.Linear(condition_shape, normalized_shape)

    def forward(self, x, cond):
        return nn.functional.rms_norm(x, x.shape[-1:]) * self.gain(cond)[:, None]
"""


@pytest.fixture
def config(tmp_path, monkeypatch, toy_config):
    (tmp_path / "own_norm.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    norm = "model.layer_kernels.LayerNorm"
    words = [f"{norm}._target_=own_norm.RMSNorm", f"~{norm}.zero_init", f"~{norm}.autocast"]
    words += ["training.max_steps=5", "diagnostics.checkpoint_every_n_steps=3"]
    return lambda folder: toy_config(tmp_path / folder, *words)


class Cut(Callback):
    """Ctrl-C in the fifth step."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 4:
            raise KeyboardInterrupt


def test_it_trains_resumes_and_forecasts_but_no_release_holds_it(config, tmp_path, toy_store):
    run = build(config("whole"))
    norms = [module for module in run.task.model.modules() if type(module).__name__ == "RMSNorm"]
    assert len(norms) == 3 + 2 * 2 + 3 + 1  # encoder, two processor blocks, decoder, output
    start = [norm.gain.weight.clone() for norm in norms]
    fit(run)
    assert run.task.trainer.global_step == 5
    assert all((norm.gain.weight != before).any() for norm, before in zip(norms, start, strict=True))
    assert accelerate(run.task.model).replaced == {}  # blocks with a norm of another kind are left alone

    with pytest.raises(KeyboardInterrupt):
        fit(build(config("cut")), [Cut()])
    resumed = build(config("cut"))
    fit(resumed)
    pairs = zip(run.task.model.parameters(), resumed.task.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)

    assert own_parts(run.config) == ["model.layer_kernels.LayerNorm"]
    with pytest.raises(ValueError, match=r"layer_kernels.LayerNorm: a class of your own.*run_forecaster"):
        export_release(run, tmp_path / "own.safetensors", {})
    assert not (tmp_path / "own.safetensors").exists()
    forecast = run_forecaster(run).forecast("2024-12-10", steps=1, members=2)
    assert forecast.t850.shape == (1, 2, 288)
    assert abs(float(forecast.t850.mean()) - 280) < 10
