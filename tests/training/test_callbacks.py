from types import SimpleNamespace

import pytest
import torch

from diffusion_lab.training import callbacks
from diffusion_lab.training.callbacks import NoiseLevelLoss, ProgressBar, Stopwatch, Throughput


@pytest.fixture
def task():
    logged = []
    return SimpleNamespace(log=lambda name, value, **_: logged.append((name, float(value))), logged=logged)


def step(callback, number, task, sigmas, losses):
    outputs = {"sigma": torch.tensor(sigmas), "sample_loss": torch.tensor(losses)}
    trainer = SimpleNamespace(global_step=number, log_every_n_steps=2, world_size=1)
    callback.on_train_batch_end(trainer, task, outputs, [torch.zeros(4)], 0)


def test_loss_of_each_noise_level_bin_by_hand(task):
    callback = NoiseLevelLoss()
    step(callback, 1, task, [[0.05], [1.0]], [[2.0], [3.0]])
    assert task.logged == []
    step(callback, 2, task, [[0.5], [100.0]], [[5.0], [7.0]])
    # Bins 0 … 0.1 … 0.5 … 2 … 10 … ∞, each with its lower edge; none of 0.1 … 0.5 and 2 … 10.
    assert task.logged == [
        ("train/loss_mean", 4.25),
        ("train/loss_sigma_bin_0", 2.0),
        ("train/loss_sigma_bin_2", 4.0),
        ("train/loss_sigma_bin_4", 7.0),
    ]
    task.logged.clear()
    step(callback, 3, task, [[0.1]], [[9.0]])
    step(callback, 4, task, [[0.1]], [[1.0]])
    assert task.logged == [("train/loss_mean", 5.0), ("train/loss_sigma_bin_1", 5.0)]


def test_samples_per_second_leave_validation_out(task, monkeypatch):
    clock = iter([0.0, 2.0, 50.0, 51.0])
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    callback = Throughput()
    callback.on_train_start(None, None)  # at 0 s
    step(callback, 1, task, [1.0], [1.0])
    step(callback, 2, task, [1.0], [1.0])  # at 2 s: 8 samples in 2 s
    callback.on_validation_end(None, None)  # at 50 s
    step(callback, 3, task, [1.0], [1.0])
    step(callback, 4, task, [1.0], [1.0])  # at 51 s: 8 samples in 1 s
    assert task.logged == [("train/samples_per_s", 4.0), ("train/samples_per_s", 8.0)]


def test_seconds_of_all_sessions_add_up(monkeypatch):
    clock = iter([10.0, 25.0, 100.0, 107.0])
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    kept = Stopwatch().state_dict()
    assert kept == {"seconds": 15.0}
    resumed = Stopwatch()
    resumed.load_state_dict(kept)
    assert resumed.state_dict() == {"seconds": 22.0}


def test_progress_bar_shows_short_names(monkeypatch):
    metrics = {"train/loss": 0.5, "train/samples_per_s": 12.0, "v_num": 3, "val/spread_skill": 1.0}
    monkeypatch.setattr(callbacks.TQDMProgressBar, "get_metrics", lambda *_: dict(metrics))
    assert ProgressBar().get_metrics(None, None) == {"loss": 0.5, "samples_per_s": 12.0, "spread_skill": 1.0}


def test_progress_bar_says_what_the_first_step_waits_for(monkeypatch):
    said = []
    bar = ProgressBar()
    bar._train_progress_bar = SimpleNamespace(set_description=lambda text, **_: said.append(text))
    for name in ("on_train_epoch_start", "on_train_batch_end"):
        monkeypatch.setattr(callbacks.TQDMProgressBar, name, lambda *_: None)
    bar.on_train_epoch_start(None)
    bar.on_train_batch_end(None, None, None, None, 0)
    assert said == ["first step, which may compile loops", "training"]
