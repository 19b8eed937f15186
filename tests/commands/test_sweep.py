import pytest
import yaml

from diffusion_lab.commands.cli import main
from diffusion_lab.inference import load_release


def test_a_sweep_trains_each_value_side_by_side(toy_overrides, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["name=toy", "training.max_steps=1", "diagnostics.evaluation.enabled=false"]
    words += ["diagnostics.validation.starts=1", "diagnostics.validation.num_steps=1"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep = ["train", "--multirun", *toy_overrides, *words, "training.lr=1e-4,1e-3", *launcher]
    assert main(sweep) == 0
    assert "Joblib.Parallel(n_jobs=2" in capfd.readouterr().out
    folders = {"training.lr=0.0001": 1e-4, "training.lr=0.001": 1e-3}
    for folder, rate in folders.items():
        run = tmp_path / "runs" / "toy" / folder
        assert yaml.safe_load((run / "config.yaml").read_text())["training"]["lr"] == rate
        release = load_release(run / "toy.safetensors")[0]
        assert release.training["steps"] == 1
        assert f"training.lr={rate}" in release.training["command"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("training.lr=1e-3", "--multirun needs several values of a key, as in training.lr=1e-4,1e-3"),
        ("training.lr=1e-3,-1", "training.lr = -1: input should be greater than 0"),
        ("training.lrr=1e-3,1e-4", "training.lrr = 0.001: there is no such key; did you mean 'lr'"),
    ],
)
def test_wrong_sweeps_are_one_message(word, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--multirun", word]) == 2
    text = capsys.readouterr().err
    assert message in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())
