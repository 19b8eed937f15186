"""How fast the sampler tuner answers, with a released checkpoint: medians, headless and in a browser.

python benchmarks/widgets.py                 # both; the browser where Chromium is installed
python benchmarks/widgets.py --repeats 5 --device cuda
python benchmarks/widgets.py --moves 200     # a restless hand: 20 moves a second
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from diffusion_lab.widgets import SamplerTuner

WAIT = 120.0
ROOT = Path(__file__).parents[1]
CELL = """
from diffusion_lab.widgets import SamplerTuner
tuner = SamplerTuner({checkpoint!r}, {device!r}, members=8, num_steps=20, sampler="heun", compile={compile})
tuner
"""

Row = tuple[str, str, float]


def until_changed(widget: object, trait: str, act: Callable[[], None]) -> float:
    """Seconds until a trait of a widget changes after an action."""
    changed = threading.Event()
    moment: list[float] = []

    def note(change: object) -> None:
        moment.append(time.perf_counter())
        changed.set()

    widget.observe(note, trait)
    began = time.perf_counter()
    act()
    if not changed.wait(WAIT):
        raise TimeoutError(f"{trait} has not changed in {WAIT} s")
    widget.unobserve(note, trait)
    return moment[0] - began


class Hand:
    """Moves a slider of the tuner to values it has not had."""

    def __init__(self, tuner: SamplerTuner) -> None:
        self.tuner = tuner
        slider = tuner.controls.widgets["sigma_max"]
        values = [value for value in slider.stops if 20 < value < 200 and value != slider.value]
        self.values = itertools.cycle(values)

    def __call__(self) -> None:
        """One move."""
        self.tuner.set(sigma_max=next(self.values))


def headless(tuner: SamplerTuner, repeats: int) -> Iterator[Row]:
    """What happens in the kernel."""
    hand, pictures = Hand(tuner), tuner.pictures
    tuner.run(WAIT)  # from here on the tuner is live: it samples when a control moves

    def measure(act: Callable[[], float]) -> float:
        seconds = []
        for _ in range(repeats):
            tuner.stop()
            tuner.wait_idle(WAIT)
            seconds.append(act())
        return statistics.median(seconds)

    schedule, film = pictures.charts["schedule"], pictures.canvases["film"]
    yield "slider → schedule picture", "100 ms", measure(lambda: until_changed(schedule, "value", hand))
    yield "slider → first denoised frame", "400 ms", measure(lambda: until_changed(film, "field", hand))

    call = network_call(tuner, repeats)

    def cancel() -> float:
        until_changed(film, "field", hand)
        time.sleep(0.4 * call)  # amid a call
        began = time.perf_counter()
        tuner.stop()
        tuner.sampling.wait_idle(WAIT)
        return time.perf_counter() - began

    yield "stop → sampling ended", f"one call: {1e3 * call:.0f} ms", measure(cancel)

    def complete() -> float:
        began = time.perf_counter()
        hand()
        tuner.run(WAIT)
        return time.perf_counter() - began

    limit = "1 s" if tuner.setting.device != "cpu" else "6 s"
    yield "8 members × 20 Heun steps, complete and scored", limit, measure(complete)


def network_call(tuner: SamplerTuner, repeats: int) -> float:
    """Median seconds of one network call of the tuner's chunks of members."""
    setting = tuner.setting
    model = tuner.session.forecaster(setting.checkpoint, setting.device).model
    network, seconds = model.network, []

    def timed(*arguments: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        answer = network(*arguments)
        if answer.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        return answer

    model.network = timed
    try:
        tuner.set(seed=setting.seed + 1).run(WAIT)
    finally:
        del model.network
    return statistics.median(seconds)


def in_a_browser(checkpoint: str, device: str, compile: bool, repeats: int) -> Iterator[Row]:
    """From a key press to changed pixels, in JupyterLab in Chromium without a window."""
    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    import driving
    import harness

    if harness.CHROMIUM is None:
        print("without a browser: Chromium is not installed")
        return
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, token = stack.enter_context(harness.running_lab(folder))
        page = stack.enter_context(harness.new_page(stack.enter_context(harness.browser())))
        cell = CELL.format(checkpoint=checkpoint, device=device, compile=compile)
        name = harness.write_notebook(folder / "notebooks", cell)
        page.goto(f"{address}/doc/tree/{name}?token={token}")
        driving.run_all_cells(page)
        schedule = page.locator(".dl-tuner img.dl-chart").first
        film = page.locator(".dl-field", has_text="D(y; σ").locator("canvas.dl-map")
        for what, limit, picture in [
            ("key → schedule on the screen", "100 ms", schedule),
            ("key → first denoised frame on the screen", "400 ms", film),
        ]:
            milliseconds = []
            for _ in range(repeats):
                page.get_by_role("button", name="Stop").click()
                page.wait_for_timeout(1500)  # all is drawn and the kernel idle
                milliseconds.append(driving.key_to_pixels(page, "sigma_max", "ArrowLeft", picture))
            yield what, limit, statistics.median(milliseconds) / 1e3


def restless(tuner: SamplerTuner, moves: int) -> Iterator[tuple[str, str]]:
    """Move random sliders 20 times a second; what is left on the screen, of errors, threads and memory."""
    hand, names = random.Random(0), ("sigma_max", "sigma_min", "rho", "S_churn", "S_noise")
    tuner.set(members=4, num_steps=10).run(WAIT)

    def move(count: int) -> float:
        slowest, due = 0.0, time.perf_counter()
        for _ in range(count):
            name = hand.choice(names)
            value = hand.choice(tuner.controls.widgets[name].stops)
            began = time.perf_counter()
            tuner.set(**{name: value})
            slowest = max(slowest, time.perf_counter() - began)
            due += 0.05
            time.sleep(max(0.0, due - time.perf_counter()))
        return slowest

    move(40)  # what is made once is made
    tuner.run(WAIT)
    gc.collect()
    threads, memory, began = threading.active_count(), resident(), time.perf_counter()
    slowest = move(moves)
    took = time.perf_counter() - began
    error = tuner.error
    tuner.wait_idle(WAIT)
    result = tuner.session.result(tuner.setting)
    gc.collect()
    mean = result.fields(tuner.pictures.variable.value, 1).mean(0)
    fresh = np.array_equal(tuner.pictures.canvases["mean"].values, result.place.raster(mean))
    drawn = tuner.pictures.charts["schedule"].ax.lines[0].get_ydata()
    levels = tuner.setting.sampling(result.forecaster).sigmas().numpy()[:-1]
    fresh &= np.array_equal(drawn, levels)
    yield "moves", f"{moves} in {took:.1f} s, the slowest held its caller up for {1e3 * slowest:.0f} ms"
    yield "pictures at the end", "of the last setting" if fresh else "STALE"
    yield "errors", f"{error or tuner.error or 'none'}"
    yield "threads", f"{threads} before, {threading.active_count()} after"
    yield "memory", f"{memory:.0f} MB before, {resident() - memory:+.1f} MB after"


def resident() -> float:
    """Memory of this process that is in use, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def table(rows: list[Row]) -> str:
    """A Markdown table."""
    lines = ["| what | must be within | median |", "| --- | ---: | ---: |"]
    for what, limit, seconds in rows:
        shown = f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
        lines.append(f"| {what} | {limit} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="example-tendency")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=11, help="moves of each kind (default: 11)")
    parser.add_argument("--compile", action="store_true", help="with a compiled network")
    parser.add_argument("--moves", type=int, help="only so many random moves, 20 a second")
    parser.add_argument("--no-browser", action="store_true", help="only what happens in the kernel")
    arguments = parser.parse_args()
    where = arguments.checkpoint, arguments.device
    tuner = SamplerTuner(*where, members=8, num_steps=20, sampler="heun", compile=arguments.compile)
    if arguments.moves:
        for what, answer in restless(tuner, arguments.moves):
            print(f"{what}: {answer}")
        return
    rows = list(headless(tuner, arguments.repeats))
    if not arguments.no_browser:
        rows += in_a_browser(*where, arguments.compile, arguments.repeats)
    threads = f"{torch.get_num_threads()} CPU threads"
    device = torch.cuda.get_device_name() if arguments.device != "cpu" else threads
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {device}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
