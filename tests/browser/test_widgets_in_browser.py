"""Widgets under a hand: the sampler tuner in JupyterLab and as the app, then the small ones."""

import time
import urllib.parse
import urllib.request

import driving
import harness
import pytest
import walk
import yaml

READY = "ready"
SMALL_WIDGETS = """
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


def wait_for_status(page, text):
    page.locator(".dl-tuner .dl-text", has_text=text).first.wait_for()


def forget_status(page):
    """So that what is read from here on is new."""
    page.locator(".dl-tuner .dl-text").first.evaluate("element => element.replaceChildren()")


def settle(page, act):
    """Do something that has the tuner sample, and wait until it has."""
    forget_status(page)
    act()
    wait_for_status(page, READY)


def click(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def stop_what_runs(page):
    """Stop a long run; one that could end before the button is reached would never say `stopped`."""
    wait_for_status(page, "left")
    click(page, "Stop")
    wait_for_status(page, "stopped")


def wait_for_rows(page, count):
    """Wait until the scoreboard has so many rows."""
    page.locator(f".dl-board tbody:not(:has(tr:nth-child({count + 1}))) tr:nth-child({count})").wait_for()


def the_tuner_answers(page, folder):
    """Drag, stop, undo, pin, export; everything is seen in the page."""
    wait_for_status(page, READY)
    page.locator(".dl-tuner select:has(option:checked:text('choose'))").wait_for()
    settle(page, lambda: driving.press(page, "members", "Home"))
    settle(page, lambda: driving.press(page, "num_steps", "Home"))
    wait_for_rows(page, 1)
    mean = page.locator(".dl-field", has_text="mean of").locator("canvas.dl-map")
    truth = page.locator(".dl-field", has_text="truth").first.locator("canvas.dl-map")
    schedule = page.locator("img.dl-chart").first
    before = [driving.look(picture) for picture in (mean, truth, schedule)]
    dragged_from = driving.readout(page, "sigma_max")

    settle(page, lambda: driving.drag(page, "sigma_max", -60))
    driving.wait_for_change(schedule, before[2])
    driving.wait_for_change(mean, before[0])
    assert float(driving.readout(page, "sigma_max")) < float(dragged_from)
    assert driving.look(truth) == before[1]

    film = page.locator(".dl-field", has_text="D(y; σ").locator("canvas.dl-map")
    last = driving.look(film)
    driving.press(page, "solver step", "Home")
    driving.wait_for_change(film, last)

    settle(page, lambda: driving.press(page, "num_steps", "End"))
    driving.press(page, "members", "End")
    stop_what_runs(page)
    settle(page, lambda: click(page, "Undo"))

    click(page, "Pin")
    wait_for_rows(page, 2)

    click(page, "Export")
    wait_for_status(page, "wrote predict_kwargs.yaml, forecast.py, forecast.nc")
    text = (folder / "tuned_sampler" / "predict_kwargs.yaml").read_text()
    exported = yaml.safe_load(text)["predict_kwargs"]["noise_scheduler_params"]
    assert f"{exported['sigma_max']:g}" == driving.readout(page, "sigma_max")
    assert page.errors == []


def test_in_jupyterlab(open_notebook, lab):
    page = open_notebook(
        "from diffusion_lab.widgets import SamplerTuner\n"
        "tuner = SamplerTuner('example-tendency', num_steps=5)\n"
        "tuner"
    )
    the_tuner_answers(page, lab[0])
    shown = float(driving.readout(page, "sigma_max"))
    assert driving.run_cell(page, "print(tuner.setting.sigma_max)") == str(shown)
    # The kernel answers other cells while it samples.
    driving.press(page, "members", "End")
    wait_for_status(page, "left")
    assert driving.run_cell(page, "print(tuner.sampling.busy)") == "True"
    stop_what_runs(page)


def test_as_an_app(app):
    page, folder = app
    the_tuner_answers(page, folder)
    every_control_has_a_name(page)


def every_control_has_a_name(page):
    """In the accessibility tree, where a slider's value is the number and not its slot."""
    session = page.context.new_cdp_session(page)
    controls, sliders = [], {}
    for node in session.send("Accessibility.getFullAXTree")["nodes"]:
        role, name = (node.get(key, {}).get("value") for key in ("role", "name"))
        if role in ("slider", "button", "combobox", "textbox", "progressbar", "image"):
            controls.append((role, name))
        if role == "slider":
            sliders[name] = node["value"]["value"]
    assert len(controls) > 40 and all(name for _, name in controls)
    for name in ("sigma_max", "num_steps", "members"):
        assert sliders[name] == pytest.approx(float(driving.readout(page, name)), rel=1e-6)
    assert ("textbox", "start") in controls and "start" not in sliders  # a date is no number
    assert page.locator(":visible[title=null]").count() == 0


def test_what_the_page_says_is_what_runs(open_notebook):
    hand = walk.Walk(open_notebook(*walk.CELLS), seed=3)
    for _ in range(12):
        hand.step()
    page = hand.page
    # The range of S_churn shrinks below its value, which only a hand or Python may move.
    page.locator(".dl-sampler select").select_option("heun")
    driving.type_into(page, "num_steps", "5")
    hand.compare()
    driving.press(page, "S_churn", "End")
    assert driving.readout(page, "S_churn") == "2.0711"
    driving.press(page, "num_steps", "ArrowLeft")
    told = hand.compare()
    assert (told["setting"]["num_steps"], told["setting"]["S_churn"]) == ("4", "2.0711")
    for text in ("150", "abc", "", "2000"):
        driving.type_into(page, "sigma_max", text)
        assert float(driving.readout(page, "sigma_max")) == 150.0
    assert "not a number from 1 to 1000" in driving.row(page, "sigma_max").inner_text()
    driving.type_into(page, "seed", "1e9")
    driving.type_into(page, "seed", "7.5")
    told = hand.compare()
    assert (told["setting"]["sigma_max"], told["setting"]["seed"]) == ("150.0", "1000000000")
    assert page.errors == []


def test_a_cell_that_runs_again_ends_its_old_run(open_notebook):
    page = open_notebook(walk.CELLS[0].replace("num_steps=3", "num_steps=100"))
    driving.ask(page, "old = tuner; old.set(members=50)")
    assert driving.ask(page, "print(old.sampling.busy)") == "True\n"
    walk.Walk(page).run_again()
    driving.ask(page, "tuner.stop()")
    for _ in range(100):
        page.wait_for_timeout(100)
        if driving.ask(page, "print(old.sampling.busy, old is tuner)") == "False False\n":
            break
    else:
        raise AssertionError("the old run goes on")


@pytest.mark.parametrize("leave", ["close", "reload"])
def test_a_kernel_ends_with_its_page(served, chromium, leave):
    address, kernels = served
    with harness.new_page(chromium) as page:
        page.goto(address)
        page.locator(".dl-tuner").first.wait_for()
        before = kernels()
        assert len(before) == 1
        if leave == "reload":
            page.reload(wait_until="commit")
        else:
            page.close(run_before_unload=True)
        deadline = time.monotonic() + 60  # 10 s where nothing else computes
        while before & kernels() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not before & kernels()
        if leave == "reload":
            page.locator(".dl-tuner").first.wait_for()
            page.close(run_before_unload=True)
    while kernels() and time.monotonic() < deadline + 60:
        time.sleep(0.2)


def test_only_who_has_the_token_gets_in(served):
    address, kernels = served
    with urllib.request.urlopen(address.partition("?")[0]) as answer:
        assert "/login" in answer.url and b"tuner" not in answer.read().lower()
    assert not kernels()


def test_no_other_host_is_asked(served, chromium):
    address, _ = served
    with harness.new_page(chromium) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.locator(".dl-tuner").first.wait_for()
        hosts = {urllib.parse.urlsplit(url).hostname for url in asked if url.startswith(("http", "ws"))}
        assert hosts == {"127.0.0.1"} and page.errors == []
        page.close(run_before_unload=True)


@pytest.fixture(scope="module")
def widgets(open_notebook):
    """The page, and the output of each widget by name."""
    page = open_notebook(*SMALL_WIDGETS.split("---"))
    names = ("explorer", "sampling", "probe", "monitor")
    outputs = {name: page.locator(".jp-CodeCell").nth(i) for i, name in enumerate(names, start=1)}
    return page, outputs


@pytest.mark.parametrize(("name", "slider"), [("explorer", "rho"), ("sampling", "num_steps"), ("probe", "σ")])
def test_a_key_on_a_slider_changes_the_chart(widgets, name, slider):
    page, outputs = widgets
    chart = outputs[name].locator("img.dl-chart")
    chart.wait_for()
    for key in ("ArrowRight", "ArrowLeft"):
        before = driving.look(chart)
        driving.press(outputs[name], slider, key)
        driving.wait_for_change(chart, before)
    assert page.errors == []


def test_the_kernel_has_the_value_that_is_read(widgets):
    page, outputs = widgets
    chart = outputs["explorer"].locator("img.dl-chart")
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
