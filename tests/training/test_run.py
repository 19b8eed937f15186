import pytest

from diffusion_lab.config import ConfigError
from diffusion_lab.training.build import build
from diffusion_lab.training.run import train, training_facts


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
