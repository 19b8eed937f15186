"""A seeded random walk over the tuner's controls in JupyterLab; what the page says must be what runs.

python tests/browser/walk.py --moves 300             # on this machine
python tests/browser/walk.py --moves 300 --delay 0.2 # over a slow connection
"""

import argparse
import contextlib
import json
import random
import tempfile
from pathlib import Path

import driving
import harness

CELLS = (
    "from diffusion_lab.widgets import SamplerTuner\n"
    "tuner = SamplerTuner('example-tendency', members=2, num_steps=3)\n"
    "tuner",
    """
import json, os, tempfile, threading
from pathlib import Path
import yaml
from diffusion_lab.widgets.tuner.board import describe
from diffusion_lab.widgets.tuner.setting import defaults_of, flat

def told():
    if not tuner.wait_idle(4.0):
        tuner.stop()
        tuner.wait_idle()
    defaults = defaults_of(tuner._forecaster)
    with tempfile.TemporaryDirectory() as folder:
        exported = yaml.safe_load(tuner.export(folder)[0].read_text())["predict_kwargs"]
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    print(json.dumps({
        "setting": {name: repr(value) for name, value in vars(tuner.setting).items()},
        "finished": tuner.result is not None,
        "differs": describe(tuner.setting, defaults),
        "exported": str(exported),
        "runs": str(tuner.setting.predict_kwargs),
        "memory": memory,
        "threads": threading.active_count(),
    }))""",
)
NAMES = {
    "steps": "lead steps",
    "schedule_type": "schedule",
    "date": "start",
    "noise_correlation": "correlation",
}
COSTLY = {"members": 4, "num_steps": 6, "steps": 2}  # and the most that is asked of each here
SLIDERS = ("sigma_max", "sigma_min", "rho", "S_churn", "S_min", "S_max", "S_noise", "noise_correlation")
TYPED = ("150", "0.3", "7", "2.5", "abc", "", "1e9", "7.5", "-1", "∞", "87.345")
PRESETS = ("checkpoint's defaults", "guide's defaults", "GenCast's")


class Walk:
    """A hand that does one thing after another.

    Args:
        page: with the notebook of `CELLS`, run.
        seed: of the hand.
    """

    def __init__(self, page, seed=0):
        self.page, self.hand, self.done = page, random.Random(seed), ""
        self.pins = 0

    def step(self):
        """Do something, and compare what the page says with what Python has."""
        kinds = {
            self.key: 6,
            self.drag: 4,
            self.type: 6,
            self.costly: 3,
            self.menu: 2,
            self.preset: 1,
            self.button: 5,
            self.pin: 1,
            self.run_again: 0.3,
        }
        act = self.hand.choices(list(kinds), list(kinds.values()))[0]
        self.done = act.__name__
        act()
        return self.compare()

    def slider(self, names=SLIDERS):
        free = [
            name
            for name in names
            if "dl-off" not in driving.row(self.page, NAMES.get(name, name)).get_attribute("class")
        ]
        name = self.hand.choice(free)
        self.done += f" {name}"
        return NAMES.get(name, name)

    def key(self):
        keys = ("ArrowLeft", "ArrowRight", "PageUp", "PageDown", "Home", "End")
        label, key, times = self.slider(), self.hand.choice(keys), self.hand.choice((1, 1, 3))
        self.done += f" {key} {times}"
        driving.press(self.page, label, key, times)

    def drag(self):
        driving.drag(self.page, self.slider(), self.hand.randint(-60, 60), moves=5)

    def type(self):
        label, text = self.slider((*SLIDERS, "seed")), self.hand.choice(TYPED)
        self.done += f" {text!r}"
        driving.type_into(self.page, label, text)

    def costly(self):
        name = self.hand.choice(list(COSTLY))
        number = self.hand.randint(2 if name == "num_steps" else 1, COSTLY[name])
        self.done += f" {name} {number}"
        driving.type_into(self.page, NAMES.get(name, name), str(number))

    def menu(self):
        name, values = self.hand.choice(
            [("sampler", ("heun", "deis", "dpmpp_2s")), ("schedule_type", ("karras", "linear", "cosine"))]
        )
        value = self.hand.choice(values)
        self.done += f" {name} {value}"
        self.page.locator(f".dl-{name} select").select_option(value)

    def preset(self):
        name = self.hand.choice(PRESETS)
        self.done += f" {name}"
        self.page.get_by_label("preset").select_option(name)

    def button(self):
        name = self.hand.choice(("Undo", "Undo", "Redo", "Reset"))
        self.done += f" {name}"
        button = self.page.get_by_role("button", name=name, exact=True)
        if button.is_enabled():
            button.click()

    def pin(self):
        self.page.get_by_role("button", name="Unpin" if self.pins > 1 else "Pin", exact=True).click()
        self.pins = 0 if self.pins > 1 else self.pins + 1

    def run_again(self):
        self.page.evaluate(
            """async () => {
                window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0;
                await window.jupyterapp.commands.execute('notebook:run-cell');
            }"""
        )
        self.pins = 0

    def compare(self):
        """What Python says, once the page says the same; AssertionError if it does not within seconds."""
        for _ in range(20):  # the page's moves come to Python by a way of their own, beside the question
            said = driving.ask(self.page, "told()")
            try:
                told = json.loads(said)
            except ValueError:
                raise AssertionError(f"after {self.done}: {said}") from None
            differences = self.differences(told)
            if not differences:
                return told
            self.page.wait_for_timeout(200)
        raise AssertionError(f"after {self.done}: {differences}")

    def differences(self, told):
        """By control: what the page shows and what Python has."""
        found, page = {}, self.page
        for name, value in told["setting"].items():
            value = {"inf": "∞"}.get(value, value).strip("'")
            if page.locator(f".dl-{name} select").count():
                shown = page.locator(f".dl-{name} select").input_value()
            elif name == "checkpoint":
                shown = page.locator(".dl-checkpoint input").input_value()
            else:
                shown = driving.readout(page, NAMES.get(name, name))
                track = driving.row(page, NAMES.get(name, name)).locator(".dl-track[aria-valuetext]")
                if (
                    shown != "∞"
                    and track.count()
                    and float(track.get_attribute("aria-valuenow")) != float(shown)
                ):
                    found[name] = "the slider", track.get_attribute("aria-valuenow")
            same = shown == value or (
                shown[:1].isdigit() and "T" not in shown and float(shown) == float(f"{float(value):.7g}")
            )
            if not same:
                found[name] = shown, value
        cells = page.locator(".dl-board tbody tr").first.locator("td").all_inner_texts()
        if told["finished"]:
            row = cells[0].split()[-1], cells[1], cells[-1]
            wanted = "now", told["setting"]["members"], told["differs"]
            if row != wanted:
                found["scoreboard"] = row, wanted
        if told["exported"] != told["runs"]:
            found["export"] = told["exported"], told["runs"]
        return found


def main():
    """Walk, and print the memory of the kernel on the way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=300)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds each way between page and server")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, token = stack.enter_context(harness.running_lab(folder))
        if arguments.delay:
            address = stack.enter_context(harness.slow(address, arguments.delay))
        page = stack.enter_context(harness.new_page(stack.enter_context(harness.browser())))
        page.goto(f"{address}/doc/tree/{harness.write_notebook(folder / 'notebooks', *CELLS)}?token={token}")
        driving.run_all_cells(page)
        walk = Walk(page, arguments.seed)
        for number in range(1, arguments.moves + 1):
            told = walk.step()
            if number % 30 == 0:
                print(f"{number} moves: {told['memory']:.0f} MB, {told['threads']} threads", flush=True)
        assert page.errors == []


if __name__ == "__main__":
    main()
