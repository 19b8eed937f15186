"""The small widgets without a browser: what they compute, against numbers worked out apart."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from diffusion_lab.analytic import GaussianMixture
from diffusion_lab.inference import load_forecaster
from diffusion_lab.training.build import build
from diffusion_lab.training.callbacks import SIGMA_EDGES
from diffusion_lab.training.fit import fit
from diffusion_lab.training.logs import read_log
from diffusion_lab.training.release import export_release
from diffusion_lab.widgets import DenoiserProbe, Sampling1D, ScheduleExplorer, TrainingMonitor
from diffusion_lab.widgets.panel import geometric


def test_a_logarithmic_slider_has_both_ends_and_even_ratios():
    values = np.array(geometric(0.02, 100.0, 12))
    assert (values[0], values[-1]) == (0.02, 100.0)
    ratios = values[1:] / values[:-1]
    assert np.abs(ratios[:-1] / 10 ** (1 / 12) - 1).max() < 0.02
    assert ratios[-1] > 1.05
    assert all(float(f"{value:.3g}") == value for value in values)


def test_schedules_follow_the_controls():
    explorer = ScheduleExplorer(num_steps=4, sigma_max=80.0, sigma_min=0.05, rho=5.0)
    line = np.linspace(80**0.2, 0.05**0.2, 4) ** 5  # Karras et al. 2022, Eq. 5
    assert explorer.schedules["karras"].numpy() == pytest.approx([*line, 0.0])
    explorer.set(num_steps=3, sigma_max=87.3)  # between two values of the slider
    assert explorer.settings["sigma_max"] == 87.3
    assert explorer.schedules["linear"].numpy() == pytest.approx([87.3, (87.3 + 0.05) / 2, 0.05, 0.0])
    assert explorer.summary() == "ScheduleExplorer(3 steps, σ from 87.3 to 0.05, ρ = 5)"
    drawn = explorer.figure().axes[0].lines[0].get_ydata()
    assert drawn[:-1] == pytest.approx(explorer.schedules["karras"][:-1].numpy())


def test_a_moved_slider_redraws_and_an_error_is_told_and_got_over(by_hand):
    explorer = ScheduleExplorer(sigma_max=1.0)
    first = explorer.chart.value
    by_hand(explorer.controls["rho"], 3.0)
    second = explorer.chart.value
    assert first != second
    by_hand(explorer.controls["sigma_min"], 2.0)
    assert "sigma_min" in explorer.message.value
    assert explorer.chart.value == second
    by_hand(explorer.controls["sigma_min"], 0.02)
    assert explorer.message.value == ""
    assert explorer.chart.value == second
    with pytest.raises(KeyError, match="there is no control 'sigmamax'; there are num_steps"):
        explorer.set(sigmamax=3)


def test_heun_on_a_normal_target_is_a_product_worked_out_by_hand(heun_factor):
    sampling = Sampling1D(GaussianMixture([1.0], [0.0], [1.0]), "heun", num_steps=5)
    result = sampling.result
    factor = heun_factor(result.sigmas.tolist()) / result.sigmas[0]
    assert result.calls == 9
    assert torch.allclose(result.paths[-1], factor * result.paths[0])
    # Every path ends at the same multiple of its true end.
    true = torch.special.ndtri((torch.arange(400.0, dtype=torch.float64) + 0.5) / 400)
    multiple = factor * (1 + result.sigmas[0] ** 2) ** 0.5
    assert result.distance == pytest.approx(((multiple - 1).abs() * true.square().mean().sqrt()).item())
    levels, flow = sampling.flow
    assert torch.allclose(flow, (1 + levels[:, None] ** 2).sqrt() * true, atol=1e-9)


def test_any_sampler_of_the_menu_runs_and_controls_that_do_nothing_are_grey():
    sampling = Sampling1D(num_steps=12)
    for name in sampling.controls["sampler"].options:
        sampling.set(sampler=name)
        assert sampling.result.distance < 0.3
        assert sampling.controls["S_churn"].disabled == (name not in ("heun", "dpmpp_2s"))
    sampling.set(sampler="heun", S_churn=3.0)
    churned = sampling.result.paths
    sampling.set(S_churn=0.0, schedule="linear")
    assert not torch.equal(churned, sampling.result.paths)
    assert sampling.controls["rho"].disabled
    assert sampling.summary().startswith("Sampling1D(heun, 12 steps: 23 calls, Wasserstein distance ")


@pytest.fixture(scope="module")
def probe(toy_config, tmp_path_factory):
    """Of a tendency model with F = 0."""
    folder = tmp_path_factory.mktemp("probe")
    run = build(toy_config(folder))
    path = export_release(run, folder / "toy.safetensors", {"seed": 0, "command": "made by a test"})
    return DenoiserProbe(load_forecaster(path, "cpu"))


def test_a_denoiser_that_knows_nothing_shrinks_its_input(probe, toy_store):
    probe.set(date="2025-01-10", variable="msl", sigma=0.5)
    column = toy_store.variables.index("msl")
    today = toy_store.index("2025-01-10")
    change = np.diff(toy_store.read(slice(today, today + 2), ["msl"])[:, 0, 0], axis=0)[0]
    statistics = toy_store.tendency_statistics("1d")
    clean = (change - statistics.mean[column]) / statistics.stdev[column]
    assert probe.fields["clean"] == pytest.approx(clean, abs=1e-3)
    assert probe.fields["denoised"] == pytest.approx(probe.fields["noisy"] / 1.25, abs=1e-5)
    assert probe.fields["error"] == pytest.approx(probe.fields["denoised"] - probe.fields["clean"], abs=1e-5)
    noise = (probe.fields["noisy"] - probe.fields["clean"]) / 0.5
    assert noise.std() == pytest.approx(1.0, abs=0.15)
    assert probe.canvases["error"].values == pytest.approx(probe.raster(probe.fields["error"]))
    # As in training: λ = (σ² + 1)/σ² times the squared error, a mean over variables and the sphere.
    errors = [probe.fields["error"]]
    probe.set(variable="t850")
    errors.append(probe.fields["error"])
    area = np.cos(np.deg2rad(toy_store.latitudes))
    assert probe.loss == pytest.approx(
        5 * np.average(np.square(errors), axis=1, weights=area).mean(), rel=0.01
    )
    assert probe.losses[0] == pytest.approx(
        1.0, abs=0.1
    )  # where noise is little, D should be y, and is c_skip y
    probe.set(variable="msl")
    assert probe.summary() == f"DenoiserProbe(2025-01-10, msl, σ = 0.5: loss {probe.loss:.2g})"


def test_the_same_noise_at_every_level_and_the_level_on_the_curve(probe):
    probe.set(sigma=probe.levels[3])
    assert probe.loss == probe.losses[3]
    noise = []
    for sigma in (0.1, 10.0):
        probe.set(sigma=sigma)
        noise.append((probe.fields["noisy"] - probe.fields["clean"]) / sigma)
    assert noise[0] == pytest.approx(noise[1], abs=1e-3)
    assert isinstance(probe.figure(), Figure)
    with pytest.raises(KeyError, match="2030"):
        probe.set(date="2030-01-01")
    probe.set(date="2025-01-10")


def test_the_monitor_shows_what_is_logged(toy_config, tmp_path):
    monitor = TrainingMonitor()
    assert monitor.summary() == "TrainingMonitor(step 0 of 100)"
    blank = monitor.chart.value
    assert not monitor.figure().axes  # which would show numbers that nobody logged
    fit(build(toy_config(tmp_path, "diagnostics.log_every_n_steps=4")), [monitor.callback])
    log = read_log(tmp_path).dropna(subset="train/loss_mean")
    assert monitor.steps == [4, 8, 12]
    assert monitor.losses["train/loss_mean"] == pytest.approx(log["train/loss_mean"].tolist())
    curves = {line.get_label(): line.get_ydata() for line in monitor.figure().axes[0].lines}
    assert curves["all levels"] == pytest.approx(log["train/loss_mean"].tolist())
    assert len(curves) == len(SIGMA_EDGES)
    assert monitor.summary() == "TrainingMonitor(step 12 of 12)"
    assert monitor.progress.value == 12
    assert monitor.chart.value != blank
