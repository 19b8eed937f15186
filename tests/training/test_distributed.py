"""Two processes train as one with the doubled batch does."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from diffusion_lab.stores.module import StepSampler
from diffusion_lab.training.build import build
from diffusion_lab.training.fit import fit
from diffusion_lab.training.logs import read_log

SETTINGS = (
    "training.max_steps=4",
    "diagnostics.checkpoint_every_n_steps=4",
    "diagnostics.validation.every_n_steps=2",
    "diagnostics.validation.starts=2",
    "diagnostics.validation.num_steps=2",
    "diagnostics.evaluation.enabled=false",
)


@pytest.mark.parametrize("num_samples", [23, 100])
def test_devices_share_the_samples_of_each_step(num_samples):
    alone = list(StepSampler(num_samples, 6, 9, seed=1))
    shares = [list(StepSampler(num_samples, 3, 9, seed=1, device=d, num_devices=2)) for d in (0, 1)]
    for step in range(9):
        together = [i for share in shares for i in share[3 * step : 3 * step + 3]]
        assert together == alone[6 * step : 6 * step + 6]


def test_two_processes_follow_the_loss_of_one_with_the_doubled_batch(toy_config, toy_overrides, tmp_path):
    run = build(toy_config(tmp_path / "one", *SETTINGS, "dataloader.batch_size=4"))
    fit(run)
    overrides = [*toy_overrides, *SETTINGS, f"system.output={tmp_path}/two", "dataloader.batch_size=2"]
    command = [sys.executable, "-m", "diffusion_lab", "train", *overrides, "system.devices=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("released checkpoint") == 1

    one, two = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    for name in ("train/loss", "train/loss_mean", "val/crps_over_persistence", "val/spread_skill"):
        curves = [log[name].dropna().to_numpy() for log in (one, two)]
        assert len(curves[0]) >= 2
        np.testing.assert_allclose(curves[1], curves[0], rtol=2e-4)
    weights = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in run.task.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)
