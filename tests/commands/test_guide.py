"""ECMWF's guide "Diffusion-based training", word for word."""

import re

import numpy as np
import pytest
import torch
import xarray as xr
from omegaconf import OmegaConf
from rich.console import Console

from diffusion_lab.commands.cli import main
from diffusion_lab.commands.forecast import ForecastRequest
from diffusion_lab.commands.guide import PLACES, show_guide
from diffusion_lab.config import NAMES, ConfigError, compose, config_folder, find, validate
from diffusion_lab.inference import load_forecaster
from diffusion_lab.models import ConditionalLayerNorm, SinusoidalEmbeddings
from diffusion_lab.objectives import DiffusionObjective, MSELoss
from diffusion_lab.schedules import KarrasUniform, LogNormal
from diffusion_lab.training.build import build
from diffusion_lab.training.forecaster import GraphForecaster, GraphTendForecaster
from diffusion_lab.training.release import own_parts

MINIMAL = """\
defaults:
- data: zarr
- dataloader: native_grid
- diagnostics: evaluation
- system: example
- graph: multi_scale
- model: graphtransformer_diffusion
- training: diffusion
- _self_
training:
  model_task: anemoi.training.train.tasks.GraphForecaster
  objective:
    _target_: anemoi.training.train.objectives.DiffusionObjective
    rho: ${model.model.diffusion.rho}
config_validation: True
"""
MINIMAL_TEND = MINIMAL.replace("graphtransformer_diffusion", "graphtransformer_diffusiontend").replace(
    "tasks.GraphForecaster", "tasks.GraphTendForecaster"
)
MODEL_GROUP = """\
model:
  _target_: anemoi.models.models.AnemoiDiffusionModelEncProcDec
  diffusion:
    sigma_data: 1.0
    noise_channels: 32
    noise_cond_dim: 16
    sigma_max: 100.0
    sigma_min: 0.02
    rho: 7.0
    noise_embedder:
      _target_: anemoi.models.layers.diffusion.SinusoidalEmbeddings
      num_channels: ${model.model.diffusion.noise_channels}
      max_period: 1000
    inference_defaults:
      noise_scheduler: {schedule_type: "karras", sigma_max: 100.0, sigma_min: 0.02, rho: 7.0, num_steps: 50}
      diffusion_sampler: {sampler: "heun", S_churn: 0.0, S_min: 0.0, S_max: .inf, S_noise: 1.0}
layer_kernels:
  LayerNorm:
    _target_: anemoi.models.layers.normalization.ConditionalLayerNorm
    normalized_shape: ${model.num_channels}
    condition_shape: 16
    zero_init: True
    autocast: false
"""
TRAINING_GROUP = """\
training_loss:
  datasets:
    your_dataset_name:
      _target_: anemoi.training.losses.MSELoss
multistep_input: 2
rollout: {start: 1, max: 1}
"""
INFERENCE = """\
checkpoint: /path/to/your/checkpoint
date: 20250101T00:00:00
predict_kwargs:
  noise_scheduler_params: {num_steps: 20, sigma_max: 90.0, sigma_min: 0.03, rho: 7.0}
  sampler_params: {sampler: "heun", S_churn: 2.5, S_min: 0.75, S_max: 90, S_noise: 1.05}
"""
PARAMS = {
    "noise_scheduler_params": {"num_steps": 20, "sigma_max": 90.0, "sigma_min": 0.03, "rho": 7.0},
    "sampler_params": {"sampler": "heun", "S_churn": 2.5, "S_min": 0.75, "S_max": 90, "S_noise": 1.05},
}
QUICK = [
    "training.max_steps=2",
    "system.accelerator=cpu",
    "diagnostics.progress_bar=false",
    "diagnostics.tensorboard=false",
    "diagnostics.validation.starts=1",
    "diagnostics.validation.num_steps=2",
    "diagnostics.evaluation.enabled=false",
]


@pytest.mark.parametrize(
    ("text", "task"),
    [(MINIMAL, "DiffusionModelEncProcDec"), (MINIMAL_TEND, "DiffusionTendModelEncProcDec")],
    ids=["state", "tendency"],
)
def test_the_minimal_config_trains_and_the_inference_file_forecasts(text, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "run.yaml").write_text(INFERENCE)
    assert main(["train", "--config-dir", ".", "--config-name", "mine", *QUICK]) == 0
    trained = tmp_path / "runs" / "mine" / "mine.safetensors"  # named for its file
    forecaster = load_forecaster(trained, "cpu")
    assert type(forecaster.model).__name__ == task
    assert forecaster.release.training["steps"] == 2

    own = [f"checkpoint={trained}", "lead_time=1d", "members=1", "seed=3", "device=cpu"]
    assert main(["forecast", "run.yaml", *own]) == 0
    written = xr.open_dataset("forecast.nc", engine="h5netcdf")
    expected = forecaster.forecast("2025-01-01", 1, 1, 3, **PARAMS)
    np.testing.assert_array_equal(written["z500"], expected["z500"])


def test_the_inference_file_says_what_it_says(tmp_path):
    (tmp_path / "run.yaml").write_text(INFERENCE)
    request = ForecastRequest.parse([str(tmp_path / "run.yaml")])
    assert (request.checkpoint, request.date) == (
        "/path/to/your/checkpoint",
        [np.datetime64("2025-01-01T00:00:00")],
    )
    assert request.overrides == PARAMS
    other = ForecastRequest.parse([str(tmp_path / "run.yaml"), "checkpoint=example-state"])
    assert (other.checkpoint, other.overrides) == ("example-state", PARAMS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no checkpoint '/path/to/your/checkpoint'; give a path, or one of example-state, "),
        (["checkpoint=example-state", "date=2031-01-01"], "has no date 2031-01-01T00:00; its dates run from"),
        (["checkpoint=example-state", "dat=2025-01-01"], "dat = '2025-01-01': .* did you mean 'date'"),
        (
            ["checkpoint=example-state", "predict_kwargs.sampler_params.S_chrn=1"],
            "'heun' has no option 'S_chrn'; did you mean 'S_churn'",
        ),
    ],
    ids=["checkpoint", "date", "key", "option"],
)
def test_what_an_inference_file_lacks_is_named(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(INFERENCE)
    assert main(["forecast", "run.yaml", "members=1", *words]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "forecast.nc").exists()


@pytest.fixture
def own_groups(tmp_path):
    """A folder whose groups are the guide's fragments, and a config that chooses them."""
    for group, text in {"model": MODEL_GROUP, "training": TRAINING_GROUP}.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "own.yaml").write_text(text)
    chosen = MINIMAL.replace("model: graphtransformer_diffusion", "model: own")
    (tmp_path / "mine.yaml").write_text(chosen.replace("training: diffusion", "training: own"))
    return tmp_path


def test_the_fragments_are_group_files(own_groups, toy_overrides):
    """Verbatim; what they leave out is as in the shipped groups, and can be overridden as if they said it."""
    words = [word for word in toy_overrides if "num_steps=3" not in word]
    config = validate(compose([*words, "training.lr=0.5"], "mine", own_groups))
    assert list(config.training.training_loss.datasets) == ["your_dataset_name"]
    assert (config.training.lr, config.training.warmup_steps, config.training.ema_decay) == (0.5, 5, 0.995)
    run = build(config)
    assert type(run.task) is GraphForecaster
    assert type(run.task.loss) is MSELoss
    assert type(run.task.objective) is DiffusionObjective
    assert run.task.objective.levels == KarrasUniform(100.0, 0.02, 7.0)
    arguments = run.task.model.arguments
    assert (arguments["noise_channels"], arguments["noise_cond_dim"], arguments["max_period"]) == (
        32,
        16,
        1000,
    )
    defaults = config.model.model.diffusion.inference_defaults
    assert (defaults.noise_scheduler["num_steps"], defaults.diffusion_sampler["sampler"]) == (50, "heun")


def keys_of(node, path=""):
    for key, value in node.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{path}{key}.")


def test_our_group_files_say_the_same_keys(own_groups):
    theirs = OmegaConf.to_container(OmegaConf.create(MODEL_GROUP))
    for model in ("graphtransformer_diffusion", "transformer_diffusiontend"):
        ours = OmegaConf.to_container(compose([f"model={model}"]).model)
        assert set(keys_of(theirs)) <= set(keys_of(ours))
    training = OmegaConf.to_container(compose().training)
    loss = training["training_loss"]["datasets"]
    assert [list(one) for one in loss.values()] == [["_target_"]]
    assert (training["multistep_input"], training["rollout"]) == (2, {"start": 1, "max": 1})


def test_noise_levels_are_said_once(toy_config, tmp_path):
    text = "\n".join(path.read_text() for path in config_folder().rglob("*.yaml"))
    for key in ("sigma_max", "sigma_min", "rho"):
        assert len(re.findall(rf"^\s*{key}: [\d.]+", text, re.MULTILINE)) == 1
    config = toy_config(tmp_path, "model.model.diffusion.sigma_max=80", "model.model.diffusion.rho=5")
    assert build(config).task.objective.levels == KarrasUniform(80.0, 0.02, 5.0)
    scheduler = config.model.model.diffusion.inference_defaults.noise_scheduler
    assert (scheduler["sigma_max"], scheduler["rho"]) == (80, 5)


@pytest.mark.parametrize("name", NAMES)
def test_names_mean_our_class_of_the_same_role(name):
    theirs = name.rpartition(".")[2]
    role = theirs.removeprefix("Anemoi").removeprefix("Weighted").replace("GraphDiffusion", "Graph")
    assert find(name).__name__ == role
    assert find(f"anemoi.elsewhere.{theirs}") is find(name)  # Anemoi moves its classes between modules


def test_processors_may_be_named_as_there(toy_config, tmp_path):
    config = toy_config(tmp_path, "model.processor=anemoi.models.layers.processor.TransformerProcessor")
    assert config.model.processor == "transformer"


def test_the_guide_teaches_names_and_keys_on_80_columns():
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show_guide(console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    words = set(text.split())
    for name in [*NAMES, *NAMES.values()]:
        module, _, cls = name.rpartition(".")
        assert {f"{module}.", cls} <= words
    config = compose(["training.objective.levels=null"])
    for group, keys in PLACES.items():
        for key in keys:
            OmegaConf.select(config, f"{group}.{key}", throw_on_missing=True)
            assert f"{group}.{key}".rpartition(".")[2] in OmegaConf.select(
                config, f"{group}.{key}".rpartition(".")[0]
            )
            assert key in words


def test_the_command_prints_the_guide(capsys):
    assert main(["guide"]) == 0
    assert "AnemoiDiffusionTendModelEncProcDec" in capsys.readouterr().out


def test_other_distributions_of_noise_levels_can_be_chosen(toy_config, tmp_path):
    levels = "training.objective.levels={_target_: diffusion_lab.schedules.LogNormal, P_mean: -0.5}"
    assert build(toy_config(tmp_path, levels)).task.objective.levels == LogNormal(-0.5, 1.2)


def test_kernels_reach_every_block(toy_config, tmp_path):
    norm, embedder = "model.layer_kernels.LayerNorm", "model.model.diffusion.noise_embedder"
    words = [f"{norm}.zero_init=false", f"{norm}.autocast=true", f"{embedder}.max_period=50"]
    model = build(toy_config(tmp_path, *words)).task.model
    norms = [module for module in model.modules() if isinstance(module, ConditionalLayerNorm)]
    assert len(norms) == 2 * 3 + 2 * 2 + 1  # mappers: sources, targets, MLP; two blocks: nodes, MLP; output
    assert all(norm.autocast and norm.scale.weight.any() for norm in norms)
    expected = SinusoidalEmbeddings(32, 50).frequencies
    torch.testing.assert_close(model.conditioning.embedding.frequencies, expected)
    assert model.arguments["max_period"] == 50


OWN = """
import torch
from diffusion_lab.models import DiffusionModelEncProcDec
from diffusion_lab.objectives import DiffusionObjective, MSELoss
from diffusion_lab.training.forecaster import GraphForecaster

class Objective(DiffusionObjective):
    def __init__(self, sigma_max, power=1.0):
        super().__init__(sigma_max=sigma_max)
        self.power = power

class Loss(MSELoss):
    pass

class BareLoss(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()

class Network(DiffusionModelEncProcDec):
    def __init__(self, *counts, width=1, **options):
        super().__init__(*counts, **options)
        self.width = width

class Task(GraphForecaster):
    pass
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_classes.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def test_your_own_classes_are_built(own_module, toy_config, tmp_path):
    words = [
        "model=graphtransformer_diffusion",
        "model.model._target_=own_classes.Network",
        "model.model.width=3",
        "training.model_task=own_classes.Task",
        "training.objective={_target_: own_classes.Objective, power: 2.0}",
        "training.training_loss.datasets.data._target_=own_classes.Loss",
        "model.model.diffusion.sigma_max=80",
    ]
    config = toy_config(tmp_path, *words)
    assert own_parts(config) == ["model.model"]
    task = build(config).task
    assert [type(part).__name__ for part in (task, task.objective, task.loss, task.model)] == [
        *("Task", "Objective", "Loss", "Network")
    ]
    assert (task.objective.power, task.objective.levels.sigma_max, task.model.width) == (2.0, 80.0, 3)


def test_a_network_of_your_own_is_trained_but_not_released(
    own_module, toy_overrides, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = ["model=graphtransformer_diffusion", "model.model._target_=own_classes.Network", "name=own"]
    assert main(["train", *toy_overrides, *words, "training.max_steps=1"]) == 0
    assert "model.model: your own class" in capsys.readouterr().out
    assert (tmp_path / "runs" / "own" / "last.ckpt").exists()
    assert not list(tmp_path.glob("runs/own/*.safetensors"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "training.objective={_target_: own_classes.Objective, pwer: 2}",
            "pwer = 2: .* did you mean 'power'",
        ),
        ("model.model={_target_: own_classes.Network, widht: 3}", "widht = 3: .*; did you mean 'width'"),
        (
            "training.training_loss.datasets.data._target_=own_classes.BareLoss",
            "scale = nothing: .* needs scale",
        ),
        ("training.model_task=own_classes.Loss", "model_task = 'own_classes.Loss': is not a training task"),
        ("training.model_task=own_clases.Task", "cannot be imported .*PYTHONPATH"),
    ],
)
def test_your_own_classes_are_checked_against_their_signatures(own_module, word, message):
    with pytest.raises(ConfigError, match=message):
        validate(compose([word]))


def test_without_validation_the_config_is_handed_over(toy_overrides, tmp_path):
    """Unknown keys are left aside, and a disagreement shows where it matters, or not at all."""
    words = [*toy_overrides, "config_validation=False", "training.my_note=hello", "training.rollout.max=3"]
    config = validate(compose([*words, f"system.output={tmp_path}"]))
    assert config.training.rollout.max == 3
    assert not hasattr(config.training, "my_note")
    assert type(build(config).task) is GraphTendForecaster


def test_tendencies_need_their_statistics(toy_config, tmp_path):
    message = (
        r"data.timestep = '2d': DiffusionTendModelEncProcDec needs statistics_tendencies .* "
        r"write data.timestep: 1d, or choose a model of states, model=graphtransformer_diffusion"
    )
    with pytest.raises(ConfigError, match=message):
        build(toy_config(tmp_path, "data.timestep=2d"))
