import math
import re

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from diffusion_lab.commands.cli import main
from diffusion_lab.config import ConfigError, compose, config_folder, instantiate, nearest, validate
from diffusion_lab.objectives import DiffusionObjective

WRONG = {
    "training.lr=-1": r"training.lr = -1: input should be greater than 0; shipped: 0.001",
    "training.lrr=1e-3": r"training.lrr = 0.001: there is no such key; did you mean 'lr'\?",
    "training.max_steps=ten": r"training.max_steps = 'ten': .*valid integer.*; shipped: 1500",
    "modle.num_layers=2": r"modle = .*: there is no such key; did you mean 'model'",
    "nme=mine": r"nme: there is no such key; did you mean 'name'",
    "graph.refinment=3": r"graph.refinment = 3: multi_scale takes no 'refinment'; did you mean 'refinement'",
    "+training.objective.sigma_dat=1": r"training.objective.sigma_dat = 1: .*; did you mean 'sigma_data'",
    "graph._target_=diffusion_lab.nothing": r"graph._target_ = 'diffusion_lab.nothing': cannot be imported",
    "model=transformer": r"model = 'transformer': there is no such file.*mean 'transformer_diffusion'",
    "graph=mine": r"graph = 'mine': there is no such file in this group; allowed: multi_scale",
    "model.processor=mamba": r"model.processor = 'mamba': .*'graphtransformer' or 'transformer'",
    "data.timestep=soon": r"data.timestep = 'soon': .*; write it as '6h', '12h' or '1d'",
    "data.drop=msl": r"data.drop = 'msl': input should be a valid list; shipped: \[\]",
    "dataloader.training.start=yesterday": r"dataloader.training.start = 'yesterday': .* not a date;",
    "dataloader.test.end=1990": r"dataloader.test = .*from 2025 to 1990 ends before .* earlier date as start",
    "system.precision=64": r"system.precision = 64: .*'32-true', 'bf16-mixed' or '16-mixed'",
    "training.ema_decay=1.0": r"training.ema_decay = 1.0: input should be less than 1",
    "diagnostics.validation.members=1": r"diagnostics.validation.members = 1: .*or equal to 2; shipped: 4",
    "training.lr=${nothing}": r"training.lr: Interpolation key 'nothing' not found; a path counts from",
    "training.lr": r"'training.lr'(.|\n)*missing EQUAL",
    "data=-1": r"data = '-1': there is no such file in this group; allowed: zarr",
    "data=3.7": r"data = '3.7': there is no such file in this group",
    "data=[1,2]": r"data = '\[1,2\]': there is no such file in this group",
    "model=nan": r"model = 'nan': there is no such file in this group",
    "training.max_steps=true": r"training.max_steps = True: true is not a number",
    "training.variable_weights={msl: true}": r"training.variable_weights = .*: true is not a number",
    "dataloader.test.start=-1": r"dataloader.test.start = -1: -1 is not a date; write it as 2025, 2025-06",
    "dataloader.test.start=now": r"dataloader.test.start = 'now': 'now' is not a date",
    "dataloader.test.start=null": r"dataloader.test.start = None: None is not a date",
    "system.accelerator=gpuu": r"system.accelerator = 'gpuu': input should be 'auto', 'cpu', 'gpu'",
    "training.seed=18446744073709551616": r"training.seed = 18446744073709551616: input should be less than",
    "training.seed=1.5": r"training.seed = 1.5: .*integer",
    "name=a/b": r"name = 'a/b': is not a name for a run",
    "name=../up": r"name = '../up': is not a name for a run",
    "name=": r"name = '': is not a name for a run",
    "name='a${data.timestep}/b'": r"name = 'a1d/b': is not a name for a run",
}


@pytest.mark.parametrize(("override", "message"), WRONG.items())
def test_faults_are_named_with_a_remedy_in_one_screen(override, message):
    with pytest.raises(ConfigError) as error:
        validate(compose([override]))
    text = str(error.value)
    assert re.search(message, text), text
    assert len(text.splitlines()) < 20
    assert max(map(len, text.splitlines())) < 240


EMBEDDER = "model.model.diffusion.noise_embedder"
NORM = "model.layer_kernels.LayerNorm"
DEFAULTS = "model.model.diffusion.inference_defaults"
# Wrong configs: what is overridden, then the path, the value and the remedy that the user is told.
DISAGREEING = [
    (
        f"{NORM}.condition_shape=8",
        f"{NORM}.condition_shape",
        "8",
        "write condition_shape: ${model.model.diff",
    ),
    (
        f"{EMBEDDER}.num_channels=8",
        f"{EMBEDDER}.num_channels",
        "8",
        "${model.model.diffusion.noise_channels}",
    ),
    ("model.num_heads=3", "model.num_heads", "3", "take one of 1, 2, 4, 8, 16, 32"),
    (
        *("training.model_task=anemoi.training.train.tasks.GraphForecaster", "training.model_task"),
        *(
            "'anemoi.training.train.tasks.GraphForecaster'",
            "forecaster.GraphTendForecaster; or choose model=",
        ),
    ),
    ("training.rollout.max=3", "training.rollout.max", "3", "write training.rollout.max: 1"),
    ("model.bounding=[{min: 0}]", "model.bounding", "[{'min': 0}]", "write model.bounding: []"),
    (
        *("training.training_loss.datasets.mine._target_=anemoi.training.losses.MSELoss",),
        *("training.training_loss.datasets", "['data', 'mine']", "~training.training_loss.datasets.data"),
    ),
    (
        *("model.model._target_=anemoi.models.models.AnemoiModelEncProcDec", "model.model._target_"),
        *(
            "'anemoi.models.models.AnemoiModelEncProcDec'",
            "did you mean 'anemoi.models.models.AnemoiDiffusionM",
        ),
    ),
    (
        *(f"{DEFAULTS}.diffusion_sampler.S_chrn=2", f"{DEFAULTS}.diffusion_sampler.S_chrn"),
        *("2", "did you mean 'S_churn'"),
    ),
    (
        *(f"{DEFAULTS}.diffusion_sampler.sampler=deis", f"{DEFAULTS}.diffusion_sampler.S_churn"),
        *("0.0", f"Take it out: ~{DEFAULTS}.diffusion_sampler.S_churn"),
    ),
    (
        *(f"{DEFAULTS}.diffusion_sampler.sampler=[heun]", f"{DEFAULTS}.diffusion_sampler.sampler"),
        *("['heun']", "it must be one of euler,"),
    ),
    (
        *(f"{DEFAULTS}.noise_scheduler.schedule_type=[karras]", f"{DEFAULTS}.noise_scheduler.schedule_type"),
        *("['karras']", "it must be one of karras,"),
    ),
    (
        *(f"{DEFAULTS}.diffusion_sampler.S_churn=true", f"{DEFAULTS}.diffusion_sampler.S_churn"),
        *("True", "is not a number"),
    ),
    (f"{DEFAULTS}.diffusion_sampler.S_churn=-1", f"{DEFAULTS}.diffusion_sampler.S_churn", "-1", "S_churn"),
    (
        *("model.model.diffusion.sigma_min=200", "model.model.diffusion.sigma_min", "200.0"),
        "must be below model.model.diffusion.sigma_max = 100.0",
    ),
]


@pytest.mark.parametrize(("override", "path", "value", "remedy"), DISAGREEING, ids=lambda word: word[:40])
def test_wrong_configs_give_errors_of_one_screen(override, path, value, remedy, capsys):
    assert main(["train", override]) == 2
    text = capsys.readouterr().err
    assert f"\n  {path} = {value}: " in text
    assert remedy in text.partition(f"{path} = ")[2]
    assert "Traceback" not in text
    assert sum(1 + len(line) // 80 for line in text.splitlines()) < 24  # of a terminal of 80 columns
    with pytest.raises(ConfigError):
        main(["--traceback", "train", override])


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        validate(compose(["training.lr=-1", "model.num_layers=0", "data.timestep=soon"]))
    assert len(str(error.value).splitlines()) == 4


def test_the_defaults_are_what_the_guide_says():
    config = validate(compose())
    assert config.model.model.target.endswith("DiffusionTendModelEncProcDec")
    diffusion = config.model.model.diffusion
    assert (diffusion.sigma_max, diffusion.sigma_min, diffusion.rho, diffusion.sigma_data) == (
        100,
        0.02,
        7,
        1,
    )
    assert (diffusion.noise_channels, diffusion.noise_cond_dim) == (32, 16)
    assert diffusion.inference_defaults.diffusion_sampler["S_max"] == math.inf
    assert config.training.multistep_input == 2
    assert config.dataloader.dataset == config.system.input.dataset == "example"
    assert config.system.output == "runs/example"


def test_one_value_stands_in_one_place():
    config = validate(compose(["model.model.diffusion.sigma_max=80", "model.model.diffusion.sigma_data=0.5"]))
    assert config.model.model.diffusion.inference_defaults.noise_scheduler["sigma_max"] == 80
    assert validate(compose(["name=other"])).system.output == "runs/other"


@pytest.mark.parametrize(
    "path", sorted((config_folder() / "model").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_model_can_be_chosen(path):
    config = validate(compose([f"model={path.stem}"]))
    assert config.model.processor == path.stem.split("_")[0]
    tendency = path.stem.endswith("tend")
    assert config.model.model.target.split(".")[-1].startswith(
        "DiffusionTend" if tendency else "DiffusionModel"
    )


NAMES = ["ünï", "日本", "h#sh", "x,y", "a=b", "qu'ote", "it''s", "a b", "[x", "2024", "1e3"]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_named_as_it_is_typed(name):
    config = validate(compose([f"name={name}"]))
    assert (config.name, config.system.output) == (name, f"runs/{name}")


def test_values_are_read_as_they_are_typed():
    words = ["system.output=/tmp/r#ns/ü", "system.input.dataset=it's.zarr", "data.drop=[msl]"]
    config = validate(compose(words))
    assert (config.system.output, config.system.input.dataset) == ("/tmp/r#ns/ü", "it's.zarr")
    assert config.data.drop == ["msl"]


def test_a_compact_date_is_a_day():
    window = validate(compose(["dataloader.test.start=20250201"])).dataloader.test
    assert window.period.first == np.datetime64("2025-02-01T00:00:00")
    assert window.period.last == np.datetime64("2025-12-31T23:59:59")


def test_dates_and_lengths_are_typed_even_where_nothing_is_checked():
    config = validate(compose(["config_validation=false", "data.timestep=24h", "training.lr=-1"]))
    assert (config.training.lr, config.data.timestep) == (-1, np.timedelta64(1, "D"))
    assert config.dataloader.test.period.last == np.datetime64("2025-12-31T23:59:59")


def test_leads_are_spelled_in_one_way():
    assert validate(compose(["data.timestep=24h"])).data.timestep == np.timedelta64(1, "D")


def test_your_own_folder_is_searched_first(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\ntraining: {max_steps: 7}\n")
    (tmp_path / "model" / "small.yaml").write_text(
        "defaults: [graphtransformer_diffusion, _self_]\nnum_layers: 2\n"
    )
    config = validate(compose(["model=small", "training.lr=0.5"], "mine", tmp_path))
    assert (config.training.max_steps, config.training.lr, config.model.num_layers) == (7, 0.5, 2)
    with pytest.raises(ConfigError, match="did you mean 'max_steps'"):
        validate(compose(["training.max_step=3"], "mine", tmp_path))


def test_missing_folders_and_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--config-dir .*nowhere: there is no such folder"):
        compose([], "config", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"mine: there is no mine.yaml in the shipped .*; see --config-dir"):
        compose([], "mine")
    (tmp_path / "mine.yaml").write_text("defaults:\n- config\n- modle: own\n- _self_\n")
    with pytest.raises(ConfigError, match="modle = 'own': there is no such group; did you mean 'model'"):
        compose([], "mine", tmp_path)
    (tmp_path / "mine.yaml").write_text("training:\n  lr: 1\n max_steps: 3\n")
    with pytest.raises(ConfigError, match=r"--config-dir .*; did you mean 'mine'"):
        compose([], "mime", tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be read as YAML: (.|\n)*mine.yaml.*, line 3"):
        compose([], "mine", tmp_path)


def test_two_configs_one_after_the_other(tmp_path):
    """Hydra keeps global state; composing must not depend on what was composed before."""
    first = compose(["training.lr=0.5"])
    with pytest.raises(ConfigError):
        compose(["nonsense=1"])
    assert compose().training.lr == 1e-3
    assert first.training.lr == 0.5


def test_what_a_group_of_your_own_leaves_out_is_as_shipped(tmp_path):
    """Also what is deleted: a training without a learning rate there is not."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "short.yaml").write_text("lr: 0.5\nrollout: {start: 1}\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "short.yaml").write_text(
        "num_channels: 48\nmodel:\n  _target_: diffusion_lab.models.DiffusionTendModelEncProcDec\n"
        "  diffusion: {sigma_max: 80.0}\n"
    )
    short = ["training=short", "model=short", "diagnostics.validation.members=3"]
    config = validate(compose(short, "config", tmp_path))
    diffusion = config.model.model.diffusion
    assert (diffusion.sigma_max, diffusion.sigma_min, diffusion.noise_cond_dim) == (80.0, 0.02, 16)
    assert diffusion.inference_defaults.noise_scheduler["sigma_max"] == 80.0  # said once
    assert (config.training.lr, config.training.max_steps, config.training.rollout.max) == (0.5, 1500, 1)
    assert (config.diagnostics.validation.members, config.diagnostics.validation.starts) == (3, 4)
    assert validate(compose(["~training.lr"])).training.lr == 1e-3


@pytest.mark.parametrize("override", ["model.model=3", "model.model.diffusion=7"])
def test_a_value_in_place_of_a_group_is_an_error_of_the_config(override):
    with pytest.raises(ConfigError, match=f"node `{override[:-2]}` is not a container"):
        validate(compose([override]))


def test_targets_are_called_with_their_keys():
    node = {"_target_": "diffusion_lab.objectives.DiffusionObjective", "sigma_max": 5.0}
    objective = instantiate(node, sigma_data=0.5)
    assert isinstance(objective, DiffusionObjective)
    assert (objective.sigma_data, objective.levels.sigma_max) == (0.5, 5.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_max": "big"}, r"DiffusionObjective with \{'sigma_max': 'big'\}: must be real number"),
        ({"sigma_max": 0.001}, r"sigma_max = 0.001 must not be below sigma_min = 0.02"),
    ],
)
def test_values_that_a_target_refuses_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        instantiate({"_target_": "diffusion_lab.objectives.DiffusionObjective", **options})


def test_nearest_names_all_where_nothing_is_near():
    assert nearest("S_chrn", ["S_churn", "rho"]) == "; did you mean 'S_churn'?"
    assert nearest("xyz", ["S_churn", "rho"]) == "; allowed: S_churn, rho"


def test_configs_stay_small():
    """Anemoi has 95 YAML files; these are to be read in one sitting."""
    files = sorted(config_folder().rglob("*.yaml"))
    assert len(files) < 30
    assert sum(len(path.read_text().splitlines()) for path in files) < 600
    for path in files:
        yaml.safe_load(path.read_text())


def test_every_key_can_be_seen_in_the_shipped_files():
    """No hidden settings: the composed config has every field of the schema."""
    config = compose()
    validated = validate(config).model_dump(by_alias=True)

    def keys(node, path=""):
        for key, value in node.items():
            yield f"{path}{key}"
            if isinstance(value, dict):
                yield from keys(value, f"{path}{key}.")

    assert set(keys(validated)) == set(keys(OmegaConf.to_container(config, resolve=True)))
