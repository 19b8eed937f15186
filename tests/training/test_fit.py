"""A run that is cut, wherever, reaches the very weights of the uncut run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging

from diffusion_lab.commands.train import draw_training
from diffusion_lab.config import ConfigError
from diffusion_lab.inference import load_release
from diffusion_lab.training.build import build
from diffusion_lab.training.fit import build_trainer, fit, load_averaged
from diffusion_lab.training.forecaster import GraphForecaster
from diffusion_lab.training.logs import read_log
from diffusion_lab.training.release import export_release

CUT_AT = 5  # between the checkpoints of steps 3 and 6; validation follows steps 4 and 8
SETTINGS = (
    "training.max_steps=8",
    "diagnostics.checkpoint_every_n_steps=3",
    "diagnostics.validation.every_n_steps=4",
    "diagnostics.validation.starts=1",
)


@pytest.fixture(scope="module")
def config(toy_config):
    return lambda folder, *overrides: toy_config(folder, *SETTINGS, *overrides)


@pytest.fixture(scope="module")
def uncut(config, tmp_path_factory):
    """The folder and the weights of the uncut run."""
    folder = tmp_path_factory.mktemp("uncut")
    run = build(config(folder))
    fit(run)
    return folder, run.task.model.state_dict()


def assert_same_weights(run, weights):
    for name, tensor in run.task.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.fixture
def ctrl_c(monkeypatch):
    """Press Ctrl-C as a method of a class begins, in step `CUT_AT`."""
    # A shell's background job starts with Ctrl-C ignored, and so would this process.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press_in(cls, method, step_of):
        original, pressed = getattr(cls, method), []

        def interrupted(self, *args):
            if step_of(self, *args) >= CUT_AT - 1 and not pressed:
                pressed.append(True)
                os.kill(os.getpid(), signal.SIGINT)
            return original(self, *args)

        monkeypatch.setattr(cls, method, interrupted)

    yield press_in
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    ("cls", "method", "step_of"),
    [
        # While a batch is processed; after the optimizer's step, before the averages follow; while the
        # averaged weights stand in for the others.
        (GraphForecaster, "training_step", lambda task, *_: task.global_step),
        (WeightAveraging, "on_train_batch_end", lambda _, trainer, *__: trainer.global_step - 1),
        (GraphForecaster, "validation_step", lambda task, *_: task.global_step),
    ],
)
def test_ctrl_c_anywhere(config, uncut, ctrl_c, tmp_path, cls, method, step_of):
    ctrl_c(cls, method, step_of)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(build(config(tmp_path)))
    assert signal.getsignal(signal.SIGINT) is handler  # Ctrl-C works again
    run = build(config(tmp_path))
    assert load_averaged(run) == 3
    fit(run)
    assert_same_weights(run, uncut[1])
    curve, uncut_curve = (read_log(folder)["train/loss"].dropna() for folder in (tmp_path, uncut[0]))
    np.testing.assert_array_equal(curve, uncut_curve)


def test_sigkill(toy_overrides, config, uncut, tmp_path):
    script = f"""
import os, signal, sys
from diffusion_lab.commands.cli import main
from diffusion_lab.training.forecaster import GraphForecaster
original = GraphForecaster.training_step
def killed(self, *args):
    if self.global_step == {CUT_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args)
GraphForecaster.training_step = killed
sys.exit(main(["train", *sys.argv[1:]]))
"""
    overrides = [*toy_overrides, f"system.output={tmp_path}", *SETTINGS]
    done = subprocess.run(
        [sys.executable, "-c", script, *overrides], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["callbacks"]["Stopwatch"]["seconds"] > 0
    checkpoint["callbacks"]["Stopwatch"]["seconds"] = 10_000.0  # as if it had taken hours
    torch.save(checkpoint, tmp_path / "last.ckpt")
    run = build(config(tmp_path))
    assert load_averaged(run) == 3
    assert 10_000 < fit(run) < 10_300
    assert_same_weights(run, uncut[1])


def test_the_last_step_is_kept_whatever_the_interval(config, uncut):
    run = build(config(uncut[0]))  # a checkpoint every 3 steps, of 8
    assert load_averaged(run) == 8
    assert_same_weights(run, uncut[1])


def test_a_finished_run_keeps_its_weights_and_its_curve(config, uncut, tmp_path):
    seconds = []
    for interval in (4, 100):  # the second finds the checkpoint of the last step
        run = build(config(tmp_path, f"diagnostics.checkpoint_every_n_steps={interval}"))
        seconds.append(fit(run))
        assert_same_weights(run, uncut[1])
        assert read_log(tmp_path)["train/loss"].dropna().size == 8
        assert draw_training(tmp_path).stat().st_size > 10_000
    assert seconds[1] == seconds[0] > 0


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.lr=1e-4", "training.lr"),
        ("data.drop=[msl]", "data.drop"),
        ("~graph.num_nearest", "graph.num_nearest"),
        ("model.model.diffusion.sigma_max=80", "model.model"),
        ("system.devices=2", "system.devices"),  # twice the batch
        ("system.num_nodes=2", "system.num_nodes"),
        ("system.precision=bf16-mixed", "system.precision"),
    ],
)
def test_another_config_in_the_same_folder_is_refused(config, uncut, override, named):
    before = Path(uncut[0] / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"another {named}.*; resume with the same settings.*name="):
        fit(build(config(uncut[0], override)))
    assert Path(uncut[0] / "config.yaml").read_bytes() == before


def test_how_a_run_is_watched_may_change(config, uncut, tmp_path):
    words = ("diagnostics.log_every_n_steps=4", "dataloader.num_workers=1", "name=other")
    run = build(config(uncut[0], *words, "system.accelerator=cpu", "system.threads=2"))
    fit(run)
    assert_same_weights(run, uncut[1])


def test_a_machine_without_the_accelerator_is_one_message(config, tmp_path):
    message = r"system\.accelerator = cuda with system\.devices = 1: .* Take system\.accelerator=auto"
    with pytest.raises(ConfigError, match=message) as raised:
        fit(build(config(tmp_path, "system.accelerator=cuda")))
    assert "\n" not in str(raised.value)


def test_a_checkpoint_is_replaced_whole_or_not_at_all(config, tmp_path, monkeypatch):
    """Killed while it writes a checkpoint, a run must still have the one before."""
    checkpoint_io = build_trainer(config(tmp_path), tmp_path).strategy.checkpoint_io
    checkpoint_io.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")

    def cut_short(checkpoint, path):
        Path(path).write_bytes(b"half a check")
        raise OSError("no space left on device")

    monkeypatch.setattr("lightning.fabric.plugins.io.torch_io._atomic_save", cut_short)
    with pytest.raises(OSError, match="no space left"):
        checkpoint_io.save_checkpoint({"step": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"step": 1}


class Recorder(Callback):
    """The current weights after each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, task, *_):
        self.steps.append({name: p.detach().clone() for name, p in task.model.named_parameters()})


def test_released_weights_are_averaged_ones(toy_config, tmp_path):
    run, recorder = build(toy_config(tmp_path, "training.max_steps=6", "training.ema_decay=0.7")), Recorder()
    fit(run, [recorder])
    recorded = recorder.steps
    assert len(recorded) == 6
    released = load_release(export_release(run, tmp_path / "r.safetensors", {}))[1]
    for name, parameter in released.named_parameters():
        average = recorded[0][name].double()
        for weights in recorded[1:]:
            average = 0.7 * average + 0.3 * weights[name]
        torch.testing.assert_close(run.task.model.get_parameter(name), average.float(), rtol=1e-5, atol=1e-7)
        # Half precision: 11 significant bits, and steps of 2^-24 below 2^-14.
        torch.testing.assert_close(parameter, average.float(), rtol=5e-4, atol=2**-24)
    assert (released.output.weight - recorded[-1]["output.weight"]).abs().max() > 1e-4


def test_a_training_shorter_than_the_interval_of_its_log_has_a_curve(toy_config, tmp_path):
    words = ["training.max_steps=2", "diagnostics.log_every_n_steps=10"]
    fit(build(toy_config(tmp_path, *words)))
    assert np.isfinite(read_log(tmp_path)["train/loss_mean"].dropna()).sum() == 1
    assert draw_training(tmp_path).stat().st_size > 10_000


def test_a_short_training_learns(toy_config, tmp_path):
    run = build(toy_config(tmp_path, "training.max_steps=40", "training.lr=1e-2", "training.ema_decay=0"))
    samples = [run.data.validation_set[i] for i in (0, 1)]
    x, state = (torch.stack(part) for part in zip(*samples, strict=True))

    @torch.no_grad()
    def loss():
        """Of both validation samples at 16 noise levels, the same each time."""
        batch = x.repeat(16, 1, 1, 1, 1), state.repeat(16, 1, 1, 1, 1)
        target = run.task.model.to_target(batch[1], batch[0][:, -1:])
        y, sigma = run.task.objective.corrupt(target, torch.Generator().manual_seed(0))
        weights = run.task.objective.pre_loss_weights(sigma)
        return run.task.loss(run.task.model(batch[0], y, sigma), target, weights).item()

    before = loss()
    fit(run)
    assert loss() < 0.6 * before
