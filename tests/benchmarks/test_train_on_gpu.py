import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffusion_lab.inference.release import load_release
from diffusion_lab.training.build import build

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_on_gpu.py"


@pytest.fixture(scope="module")
def script():
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.mark.parametrize(("sigma_rel", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_are_those_of_the_paper(script, sigma_rel, exponent):
    """Karras et al. 2024, Table 1 in the appendix and Eq. 127: widths of 5 and 10 %."""
    found = script.power_exponent(sigma_rel)
    assert found == pytest.approx(exponent, abs=0.01)
    steps = (np.arange(200_000) + 0.5) / 200_000
    weights = steps**found / (steps**found).sum()
    mean = (weights * steps).sum()
    assert np.sqrt((weights * (steps - mean) ** 2).sum()) == pytest.approx(sigma_rel, rel=1e-3)
    with pytest.raises(ValueError, match=r"0\.289"):
        script.power_exponent(0.3)


def test_samples_on_the_device_are_those_of_the_dataset(script, toy_config, tmp_path):
    dataset = build(toy_config(tmp_path)).data.train_set
    states = script.states_on(torch.device("cpu"), dataset)
    chosen = [0, 7, len(dataset) - 1]
    x, state = states.batch(states.rows[chosen])
    for i, index in enumerate(chosen):
        torch.testing.assert_close(x[i], dataset[index][0], rtol=0, atol=0)
        torch.testing.assert_close(state[i], dataset[index][1], rtol=0, atol=0)


def test_the_average_weighs_the_steps_by_their_power(script, toy_config, tmp_path):
    run = build(toy_config(tmp_path, "training.lr=0.01"))
    step = script.TrainingStep(run, script.states_on(torch.device("cpu"), run.data.train_set), 0.1)
    past = []
    for i in range(12):
        step(i, [0, 1, 2, 3])
        past.append(step.parameters[0].detach().clone())
    # β_t = (1 − 1/t)^(γ+1) gives parameters at step t the weight t^(γ+1) − (t − 1)^(γ+1) of the last one's.
    powers = np.arange(13.0) ** (step.exponent + 1)
    weights = torch.from_numpy(np.diff(powers) / powers[-1]).float()
    expected = torch.einsum("i,i...->...", weights, torch.stack(past))
    torch.testing.assert_close(step.average[0], expected, rtol=1e-5, atol=1e-6)


def test_a_trial_on_a_cpu_learns_and_is_released(script, toy_overrides, tmp_path, capsys, monkeypatch):
    settings = ["training.max_steps=150", "training.lr=0.01", "dataloader.batch_size=4", "name=toy"]
    words = ["--device", "cpu", "--config-name", "config", f"system.output={tmp_path}", *settings]
    monkeypatch.setattr(sys, "argv", ["train_on_gpu.py"])
    path = script.main([*words, *toy_overrides])
    release, *_ = load_release(path)
    assert {key: release.training[key] for key in ("steps", "batch_size", "device", "sigma_rel")} == {
        "steps": 150,
        "batch_size": 4,
        "device": "cpu",
        "sigma_rel": 0.05,
    }
    assert release.training["command"].startswith("python benchmarks/train_on_gpu.py --device cpu")
    losses = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    first, last = (float(line.split("loss ")[1].split(",")[0]) for line in (losses[0], losses[-1]))
    assert last < 0.8 * first
