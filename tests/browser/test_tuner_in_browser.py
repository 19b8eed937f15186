"""The sampler tuner under a hand: in JupyterLab, and as the app."""

import re

import driving
import yaml

READY = "ready"


def status(page):
    return page.locator(".dl-tuner .dl-status").first


def wait_for_status(page, text):
    status(page).filter(has_text=text).wait_for()


def the_tuner_answers(page, folder):
    """Drag, stop, undo, pin, export; everything is seen in the page."""
    driving.press(page, "members", "Home")
    driving.press(page, "num_steps", "Home")
    wait_for_status(page, READY)
    mean = page.locator(".dl-field", has_text="mean of").locator("canvas.dl-map")
    truth = page.locator(".dl-field", has_text="truth").first.locator("canvas.dl-map")
    schedule = page.locator("img.widget-image").first
    before = [driving.look(picture) for picture in (mean, truth, schedule)]
    dragged_from = driving.readout(page, "sigma_max")

    driving.drag(page, "sigma_max", -60)
    driving.wait_for_change(schedule, before[2])
    driving.wait_for_change(mean, before[0])
    wait_for_status(page, READY)
    assert float(driving.readout(page, "sigma_max")) < float(dragged_from)
    assert driving.look(truth) == before[1]

    driving.press(page, "num_steps", "End")
    page.get_by_role("button", name="Stop").click()
    wait_for_status(page, "stopped")
    page.get_by_role("button", name="Undo").click()
    wait_for_status(page, READY)

    page.get_by_role("button", name=re.compile(r"\bPin$")).click()  # an icon's glyph goes before
    page.locator(".dl-board tbody tr").nth(1).wait_for()  # the pin's row and the current setting's
    assert page.locator(".dl-board tbody tr").count() == 2

    page.get_by_role("button", name="Export").click()
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
    assert driving.run_cell(page, "print(tuner.setting.sigma_max)").strip() == str(
        float(driving.readout(page, "sigma_max"))
    )
    # The kernel answers other cells while it samples.
    driving.press(page, "members", "End")
    assert driving.run_cell(page, "print(tuner.sampling.busy)").strip() == "True"
    page.get_by_role("button", name="Stop").click()
    wait_for_status(page, "stopped")


def test_as_an_app(app):
    page, folder = app
    page.locator(".dl-tuner").wait_for()
    the_tuner_answers(page, folder)
