"""The small widgets appear in JupyterLab and answer to keys."""

import driving


def test_schedule_explorer_follows_its_sliders(notebook):
    page = notebook(
        "from diffusion_lab.widgets import ScheduleExplorer\nexplorer = ScheduleExplorer()\nexplorer"
    )
    chart = page.locator("img.widget-image")
    chart.wait_for()
    for key in ("ArrowRight", "ArrowLeft"):
        before = driving.look(chart)
        driving.press(page, "rho", key)
        driving.wait_for_change(chart, before)
    driving.press(page, "sigma_max", "ArrowLeft", times=2)
    shown = driving.readout(page, "sigma_max")
    assert driving.run_cell(page, "print(explorer.settings['sigma_max'])") == f"{float(shown)}"
    page.screenshot(path="/work/scratch/charts/sch.png")
