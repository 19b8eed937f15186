import math

import numpy as np
import pytest
import torch

from diffusion_lab.config import ConfigError
from diffusion_lab.models import DiffusionModelEncProcDec
from diffusion_lab.stores.states import Normalizer
from diffusion_lab.training.build import build, select_variables, tendency_scales
from diffusion_lab.training.forecaster import GraphForecaster, GraphTendForecaster
from diffusion_lab.training.release import export_release


def test_tendency_scales_by_hand(toy_config, tmp_path, toy_store):
    run = build(toy_config(tmp_path))
    # Tendencies and statistics over 2024, from all pairs of days without the missing one.
    fields = toy_store.read(slice(0, 366), ["t850", "msl"])[:, :, 0].astype(np.float64)
    change = np.diff(fields, axis=0)
    deviation = np.nanstd(fields, axis=(0, 2))
    mean, stdev = tendency_scales(toy_store, run.variables, "1d")
    np.testing.assert_allclose(mean, np.nanmean(change, axis=(0, 2)) / deviation, atol=1e-6)
    np.testing.assert_allclose(stdev, np.nanstd(change, axis=(0, 2)) / deviation, rtol=1e-5)
    np.testing.assert_allclose(run.task.model.tendency_stdev, stdev, rtol=1e-6)
    with pytest.raises(KeyError, match="no tendency statistics for the lead '3d'; it has 1d"):
        tendency_scales(toy_store, run.variables, "3d")


def test_target_of_the_tendency_model_has_unit_variance(toy_config, tmp_path):
    run = build(toy_config(tmp_path))
    samples = [run.data.train_set[i] for i in range(0, 300, 3)]
    targets = torch.stack([run.task.model.to_target(state, x[-1:]) for x, state in samples])
    torch.testing.assert_close(targets.mean((0, 1, 2, 3)), torch.zeros(2), atol=0.02, rtol=0)
    torch.testing.assert_close(targets.std((0, 1, 2, 3)), torch.ones(2), atol=0.1, rtol=0)


def test_roles_of_the_config(toy_config, tmp_path, toy_store):
    def chosen(*overrides):
        return select_variables(toy_store, toy_config(tmp_path, *overrides))

    variables = chosen("data.diagnostic=[msl]", "data.computed_forcing=[insolation]")
    assert variables.input == ("t850", "orography", "insolation")
    assert variables.output == ("t850", "msl")
    assert chosen("data.forcing=[msl]", "data.drop=[orography]").forcing[0] == "msl"
    assert "orography" not in chosen("data.drop=[orography]").input
    with pytest.raises(ConfigError, match=r"data.diagnostic: there is no 'q700'; allowed: t850, msl, orog"):
        chosen("data.diagnostic=[q700]")
    with pytest.raises(ConfigError, match=r"data.drop: there is no 'q700'"):
        chosen("data.drop=[q700]")
    with pytest.raises(
        ConfigError, match=r"computed_forcing: there is no 'insolatoin'; did you mean 'insolat"
    ):
        chosen("data.computed_forcing=[insolatoin]")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.timestep=7h"],
            r"data.timestep = 7h: the forecast step 7h is not a multiple of .* 1d",
        ),
        (
            ["dataloader.validation.start=1990", "dataloader.validation.end=1991"],
            r"dataloader.validation = 1990 to 1991: no sample of 2 input states",
        ),
    ],
)
def test_steps_and_windows_that_the_store_has_not_are_named(toy_config, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(toy_config(tmp_path, *overrides))


def test_the_model_decides_the_task(toy_config, tmp_path):
    assert type(build(toy_config(tmp_path)).task) is GraphTendForecaster
    state = build(toy_config(tmp_path, "model=transformer_diffusion", "data.diagnostic=[msl]"))
    assert type(state.task) is GraphForecaster
    assert type(state.task.model) is DiffusionModelEncProcDec
    assert state.task.model.arguments["processor"] == "transformer"
    assert state.task.model.arguments["num_prognostic"] == 1
    named = toy_config(tmp_path, "training.model_task=anemoi.training.train.tasks.GraphTendForecaster")
    assert type(build(named).task) is GraphTendForecaster


def test_weights_of_variables_and_nodes_reach_the_loss(toy_config, tmp_path, toy_store):
    loss = build(toy_config(tmp_path, "+training.variable_weights.msl=3")).task.loss
    torch.testing.assert_close(loss.variable_weights, torch.tensor([1.0, 3.0]))
    # Zones 15° wide, 24 cells each: sin 90° - sin 75° over 2 · 24 at the pole.
    assert loss.node_weights[0].item() == pytest.approx((1 - math.sin(math.radians(75))) / 48, rel=1e-2)
    with pytest.raises(ConfigError, match=r"variable_weights names \['q'\]; outputs are \['t850', 'msl'\]"):
        build(toy_config(tmp_path, "+training.variable_weights.q=3"))


def test_the_seed_decides_the_initial_weights(toy_config, tmp_path):
    first, again, other = (
        build(toy_config(tmp_path, f"training.seed={seed}")).task.model.embed_noised.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_initial_weights_are_taken_where_names_and_shapes_fit(toy_config, tmp_path):
    first = build(toy_config(tmp_path, "training.seed=1"))
    path = export_release(first, tmp_path / "first.safetensors", {})
    start_from = f"training.initial_weights={path}"
    given = {name: weight.half().float() for name, weight in first.task.model.named_parameters()}
    same = build(toy_config(tmp_path, start_from)).task.model
    assert all(torch.equal(weight, given[name]) for name, weight in same.named_parameters())

    other, fresh = (
        dict(
            build(
                toy_config(tmp_path, "model.processor=transformer", *overrides)
            ).task.model.named_parameters()
        )
        for overrides in ([start_from], [])
    )
    taken = {name for name in other if name in given and given[name].shape == other[name].shape}
    assert {"encoder.key_value.weight", "decoder.mlp.expand.weight"} <= taken < other.keys()
    assert all(torch.equal(other[name], (given if name in taken else fresh)[name]) for name in other)


def test_initial_weights_that_cannot_be_had(toy_config, tmp_path):
    with pytest.raises(ConfigError, match="initial_weights: there is no checkpoint 'nowhere'"):
        build(toy_config(tmp_path, "training.initial_weights=nowhere"))


def test_validation_shares_out_its_steps_as_the_sampling_defaults_do(toy_config, tmp_path):
    def levels(*overrides):
        return build(toy_config(tmp_path, *overrides)).task.settings.sigmas().tolist()

    node = "model.model.diffusion.inference_defaults.noise_scheduler"
    others = [f"~{node}.{key}" for key in ("sigma_max", "sigma_min", "rho", "num_steps")]
    manual = levels(*others, f"{node}.schedule_type=manual", f"{node}.sigmas=[80,10,1]")
    assert manual == [80, 10, 1, 0]
    split = [f"~{node}.rho", f"{node}.schedule_type=piecewise", f"{node}.num_steps=20"]
    split += [f"{node}.num_steps_above=12", "diagnostics.validation.num_steps=10"]
    piecewise = levels(*split)
    assert len(piecewise) == 11
    assert piecewise[6] == pytest.approx(1.0)  # 12 of 20 above the split: 6 of 10


def test_normalised_once(toy_config, tmp_path, toy_store):
    """What the network sees has mean 0 and standard deviation 1 over the statistics window."""
    run = build(toy_config(tmp_path))
    x = torch.stack([run.data.train_set[i][0] for i in range(0, 300, 10)])
    assert x[..., :3].mean((0, 1, 2, 3)).abs().max() < 0.1
    torch.testing.assert_close(x[..., :3].std((0, 1, 2, 3)), torch.ones(3), atol=0.1, rtol=0)
    stdev = Normalizer.of(toy_store, run.variables.output).stdev
    torch.testing.assert_close(run.task.output_stdev, stdev)
