from types import SimpleNamespace

import pytest
from rich.console import Console

from diffusion_lab.commands import train as module
from diffusion_lab.commands.train import evaluate, train
from diffusion_lab.config import ConfigError
from diffusion_lab.inference import SamplingSettings
from diffusion_lab.training.build import build
from diffusion_lab.training.release import training_facts


def test_a_test_window_without_data_is_refused_before_the_training(toy_config, tmp_path):
    config = toy_config(tmp_path / "run", "dataloader.test.start=2031", "dataloader.test.end=2031")
    with pytest.raises(ValueError, match="between 2031-01-01T00:00 and 2031-12-31T23:59"):
        train(config, "")
    window = ("dataloader.test.start=2025-01-28", "dataloader.test.end=2025-01-31")
    short = toy_config(tmp_path / "run", *window)
    with pytest.raises(ConfigError, match=r"dataloader.test .* shorter .* diagnostics.evaluation.steps=5"):
        train(short, "")
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_the_batch_of_a_model_card_is_that_of_all_devices(toy_config, tmp_path):
    run = build(toy_config(tmp_path, "dataloader.batch_size=3", "system.devices=4", "system.num_nodes=2"))
    assert training_facts(run, "", 1.0)["batch_size"] == 24


def test_a_checkpoint_names_the_windows_of_its_training(toy_config, tmp_path):
    facts = training_facts(build(toy_config(tmp_path, "dataloader.test.end=2025-02-01")), "", 1.0)
    assert facts["test_window"][1] == "2025-02-01"
    assert facts["window"] != facts["test_window"]


def test_a_model_with_levels_given_one_by_one_is_evaluated_with_them(toy_config, tmp_path, monkeypatch):
    """Of such a schedule no number of steps can be asked for."""
    schedule, asked = {"schedule_type": "manual", "sigmas": [80.0, 10.0, 1.0]}, {}

    class Asked(Exception):
        pass

    def forecast_ensembles(*_, **options):
        asked.update(options)
        raise Asked

    settings = SamplingSettings(schedule, {"sampler": "euler"})
    monkeypatch.setattr(module, "load_forecaster", lambda _: SimpleNamespace(settings=settings))
    monkeypatch.setattr(module.verification, "forecast_ensembles", forecast_ensembles)
    with pytest.raises(Asked):
        evaluate(build(toy_config(tmp_path)), tmp_path / "toy.safetensors", Console())
    assert asked["settings"].sigmas().tolist() == [80, 10, 1, 0]
