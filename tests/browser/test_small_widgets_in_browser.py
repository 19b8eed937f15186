"""The small widgets appear in JupyterLab and answer to keys."""

import driving
import pytest

CELLS = """
from diffusion_lab.widgets import DenoiserProbe, Sampling1D, ScheduleExplorer, TrainingMonitor
explorer, sampling, probe, monitor = ScheduleExplorer(), Sampling1D(), DenoiserProbe(), TrainingMonitor()
---
explorer
---
sampling
---
probe
---
monitor
---
monitor.begin(0, 100)
for step in (10, 20):
    monitor.add(step, {"train/loss_mean": 1 / step, "train/loss_sigma_bin_2": 2 / step})
monitor.end()
"""


@pytest.fixture(scope="module")
def widgets(open_notebook):
    """The page, and the output of each widget by name."""
    page = open_notebook(*CELLS.split("---"))
    names = ("explorer", "sampling", "probe", "monitor")
    outputs = {name: page.locator(".jp-CodeCell").nth(i) for i, name in enumerate(names, start=1)}
    return page, outputs


@pytest.mark.parametrize(("name", "slider"), [("explorer", "rho"), ("sampling", "num_steps"), ("probe", "σ")])
def test_a_key_on_a_slider_changes_the_chart(widgets, name, slider):
    page, outputs = widgets
    chart = outputs[name].locator("img.widget-image")
    chart.wait_for()
    for key in ("ArrowRight", "ArrowLeft"):
        before = driving.look(chart)
        driving.press(outputs[name], slider, key)
        driving.wait_for_change(chart, before)
    assert page.errors == []


def test_the_kernel_has_the_value_that_is_read(widgets):
    page, outputs = widgets
    chart = outputs["explorer"].locator("img.widget-image")
    before = driving.look(chart)
    driving.press(outputs["explorer"], "sigma_max", "ArrowLeft")
    driving.wait_for_change(chart, before)
    shown = driving.readout(outputs["explorer"], "sigma_max")
    assert driving.run_cell(page, "print(explorer.settings['sigma_max'])") == f"{float(shown)}"


def test_the_probe_colours_its_maps_anew(widgets):
    _, outputs = widgets
    noisy, denoised = (outputs["probe"].locator("canvas.dl-map").nth(i) for i in (1, 2))
    clean = driving.look(outputs["probe"].locator("canvas.dl-map").nth(0))
    before = [driving.look(canvas) for canvas in (noisy, denoised)]
    driving.press(outputs["probe"], "σ", "PageUp")
    driving.wait_for_change(noisy, before[0])
    driving.wait_for_change(denoised, before[1])
    assert len({clean, driving.look(noisy), driving.look(denoised)}) == 3


def test_the_monitor_is_drawn_while_a_cell_trains(widgets):
    page, outputs = widgets
    outputs["monitor"].locator(".widget-html-content", has_text="step 20 of 100").wait_for()
    assert page.errors == []
