import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import diffusion_lab
from diffusion_lab.commands.cli import main
from diffusion_lab.inference import load_release
from diffusion_lab.training.forecaster import GraphForecaster

COMMANDS = [
    [],
    ["train"],
    ["forecast"],
    ["verify"],
    ["tune"],
    ["publish"],
    ["data"],
    ["data", "create"],
    ["data", "inspect"],
    ["lab"],
    ["guide"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "alone")
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as status:
        main([*command, "--help"])
    assert status.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) > 5
    if command and command[0] in ("train", "forecast", "verify", "tune", "lab"):
        assert text.count(f"diffusion-lab {command[0]} ") >= 2  # examples to copy


def test_the_module_is_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "diffusion_lab", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == diffusion_lab.__version__


def test_the_config_is_shown_and_nothing_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--cfg", "job", "--resolve", "training.max_steps=7", "name=mine"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    groups = {"data", "dataloader", "diagnostics", "graph", "model", "system", "training"}
    assert groups | {"name"} <= shown.keys()
    assert (shown["training"]["max_steps"], shown["system"]["output"]) == (7, "runs/mine")
    assert main(["train", "--cfg", "job"]) == 0
    assert "output: runs/${name}" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_shown_config_trains_the_same_again(tmp_path, capsys):
    """What --cfg prints is itself a config."""
    main(["train", "--cfg", "job", "training.lr=0.25"])
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    words = ["--config-dir", str(tmp_path), "--config-name", "again", "--cfg", "job"]
    assert main(["train", *words]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["training"]["lr"] == 0.25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "training.lrr=1"], "training.lrr = 1: there is no such key; did you mean 'lr'"),
        (["train", "training.lr=-1"], "training.lr = -1: input should be greater than 0"),
        (
            ["train", "system.input.dataset=nowhere.zarr"],
            "system.input.dataset = 'nowhere.zarr': No zarr store at 'nowhere.zarr'. Write the path",
        ),
        (["train", "--config-dir", "nowhere"], "there is no such folder"),
        (["forecast", "date=2025-01-01"], "checkpoint: is required"),
        (["forecast", "checkpoint=nowhere", "date=2025-01-01"], "there is no checkpoint 'nowhere'"),
        (["verify"], "verify needs either checkpoint=NAME or forecast=FILE"),
        (["data", "inspect", "nowhere.zarr"], "No zarr store at 'nowhere.zarr'"),
    ],
)
def test_errors_of_use_are_one_message(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("diffusion-lab: ")
    assert message in text
    assert "Traceback" not in text
    assert len(text.splitlines()) < 20
    with pytest.raises((ValueError, KeyError, FileNotFoundError)):
        main(["--traceback", *words])


def test_ctrl_c_has_its_own_status(monkeypatch, capsys):
    def stopped(name, arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusion_lab.commands.cli._run_request", stopped)
    assert main(["forecast"]) == 130
    assert "Run the same command again to resume" in capsys.readouterr().err


def test_sigterm_stops_a_command_as_ctrl_c_does(monkeypatch, capsys):
    def terminated(name, arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("diffusion_lab.commands.cli._run_request", terminated)
    assert main(["forecast"]) == 130
    assert "Run the same command again to resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_training_that_is_terminated_can_be_resumed(toy_overrides, tmp_path, monkeypatch, capsys):
    """Lightning has a handler of its own, which only makes a note."""
    step = GraphForecaster.training_step

    def terminated(self, *args):
        if self.global_step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(GraphForecaster, "training_step", terminated)
    words = [f"system.output={tmp_path}", "training.max_steps=10", "diagnostics.evaluation.enabled=false"]
    assert main(["train", *toy_overrides, *words, "diagnostics.checkpoint_every_n_steps=5"]) == 130
    assert "Run the same command again to resume" in capsys.readouterr().err
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5


def test_from_a_store_to_scores_and_back(toy_overrides, toy_store, tmp_path, monkeypatch, capsys):
    """The main job on the toy atmosphere, then its checkpoint forecasts and is verified."""
    monkeypatch.chdir(tmp_path)
    evaluation = {"starts": 2, "steps": 2, "members": 2, "num_steps": 2}
    overrides = [
        *toy_overrides,
        "name=toy",
        "data.drop=[t850]",
        "training.max_steps=12",
        *(f"diagnostics.evaluation.{key}={value}" for key, value in evaluation.items()),
    ]
    assert main(["train", *overrides]) == 0
    output = capsys.readouterr().out
    run = tmp_path / "runs" / "toy"
    assert (run / "last.ckpt").exists()
    assert "msl" in output
    assert "persistence" in output.lower()
    assert {path.name for path in (run / "verification").iterdir()} == {"scores.nc", "report.html"}
    assert (run / "loss.png").exists()
    release = load_release(run / "toy.safetensors")[0]
    assert release.training["command"].startswith("diffusion-lab train ")
    assert "training.max_steps=12" in release.training["command"]
    assert (release.training["steps"], release.store) == (12, toy_store.path)

    checkpoint = "checkpoint=runs/toy/toy.safetensors"
    assert main(["forecast", checkpoint, "date=2025-01-10", "lead_time=2d", "members=2"]) == 0
    forecast = xr.open_dataset(tmp_path / "forecast.nc", engine="h5netcdf")
    assert dict(forecast.sizes) == {"time": 2, "ensemble": 2, "cell": 288}
    # 12 steps teach little, but a tendency forecast stays near its start.
    analysis = toy_store.read(toy_store.index("2025-01-10"), ["msl"])[0, 0, 0]
    assert np.abs(forecast["msl"] - analysis).mean() < 3 * toy_store.statistics.stdev[1]

    words = ["start=2025-01", "end=2025-01", "starts=2", "members=2", "lead_time=1d"]
    assert main(["verify", checkpoint, *words]) == 0
    scores = xr.open_dataset(tmp_path / "verification" / "scores.nc", engine="h5netcdf")
    # Two starts 14 days apart; a cell's area goes with the cosine of its latitude.
    change = [np.diff(toy_store.read(slice(day, day + 2), ["msl"])[:, 0, 0], axis=0)[0] for day in (366, 380)]
    area = np.cos(np.deg2rad(toy_store.latitudes))
    rmse = np.sqrt(np.average(np.square(change), axis=1, weights=area).mean())
    assert scores["persistence_rmse"].sel(variable="msl").item() == pytest.approx(rmse, rel=5e-3)
