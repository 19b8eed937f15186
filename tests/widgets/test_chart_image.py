import base64
import io
import threading

import matplotlib
import numpy as np
import pytest
from ipywidgets import HTML
from matplotlib.figure import Figure
from PIL import Image as Picture

from diffusion_lab.widgets.chart_image import Chart, Pictured, QuickChart, png


class Shown(Pictured, HTML):
    def figure(self):
        return Figure(figsize=(2, 1), facecolor="#0072b2")

    def summary(self):
        return "Shown(blue)"


def pixels(data):
    return np.asarray(Picture.open(io.BytesIO(data)).convert("RGB"))


def test_a_stored_output_has_the_live_widget_a_picture_and_a_text_without_identities():
    bundles = [Shown()._repr_mimebundle_() for _ in range(2)]
    live = [bundle.pop("application/vnd.jupyter.widget-view+json")["model_id"] for bundle in bundles]
    assert live[0] != live[1]
    assert bundles[0] == bundles[1]
    assert bundles[0]["text/plain"] == "Shown(blue)"
    picture = pixels(base64.b64decode(bundles[0]["image/png"]))
    assert picture.shape == (100, 200, 3)
    assert (picture == (0x00, 0x72, 0xB2)).all()


def test_a_chart_shows_its_figure_and_keeps_the_picture_when_drawing_fails(recwarn):
    chart = Chart("a chart", 2, 1)
    with chart.redraw() as figure:
        figure.add_axes((0, 0, 1, 1), facecolor="black").set_axis_off()
        figure.set_facecolor("red")
    shown = chart.value
    assert shown == png(chart.figure)
    assert (pixels(shown) == (255, 0, 0)).all()
    assert not recwarn.list  # nothing to arrange: axes at a place of their own
    with pytest.raises(ZeroDivisionError), chart.redraw():
        _ = 1 / 0
    assert chart.value == shown


def test_axes_stay_where_they_were_first_put_and_labels_are_inside():
    chart = Chart("a chart", 3, 2)
    places = []
    for label in ("y", "a label of\ntwo lines"):
        with chart.redraw() as figure:
            figure.subplots().set_ylabel(label)
        places.append(chart.figure.axes[0].get_position().bounds)
    assert places[0] == places[1]
    with chart.redraw() as figure:
        left, _ = figure.subplots(1, 2)
        left.set_ylabel("y")
    assert left.get_tightbbox().x0 >= 0  # two axes are arranged anew


def test_threads_take_turns():
    chart = Chart("a chart", 1, 1)
    inside, most = [], []

    def draw():
        with chart.redraw() as figure:
            inside.append(1)
            most.append(len(inside))
            figure.subplots()
            inside.pop()

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
    assert chart.value == png(chart.figure)


def test_axes_make_room_for_labels_that_grow():
    chart = Chart("a chart", 3, 2, steady=False)
    for label in ("y", "a label of\nthree\nlines"):
        with chart.redraw() as figure:
            figure.subplots().set_ylabel(label)
        assert chart.figure.axes[0].get_tightbbox().x0 >= 0


def test_a_quick_chart_shows_what_the_whole_figure_would():
    chart = QuickChart("a chart", 3, 2, lambda ax: ax.set(xlabel="x", ylim=(0, 4)))
    draws = []
    whole = chart._canvas.draw
    chart._canvas.draw = lambda: draws.append(1) or whole()

    def shown(colour, values, legend):
        def fill(ax):
            ax.bar(range(3), values, color=colour)
            ax.plot(values, color="black", label="line")
            ax.text(0, 3, colour)
            ax.set(xlim=(-1, 3))
            ax.set_title(colour, y=1.0)
            if legend:
                ax.legend()

        chart.draw(fill, lambda ax: ax.tick_params(colors=colour), colour)
        return pixels(chart.value)

    for colour, values, legend in [
        ("red", [1, 2, 3], True),
        ("red", [3, 0, 1], False),
        ("blue", [1, 1, 1], True),
    ]:
        np.testing.assert_array_equal(
            shown(colour, values, legend), pixels(png(chart.figure, chart.figure.dpi))
        )
        ax = chart.ax
        assert [len(kept) for kept in (ax.lines, ax.patches, ax.texts, ax.containers)] == [1, 3, 1, 1]
    draws.clear()
    shown("blue", [2, 2, 2], True)
    assert not draws  # neither limits nor colours have changed: the axes are not drawn again


def test_a_style_that_lays_figures_out_does_not_disturb_a_quick_chart(recwarn):
    with matplotlib.rc_context({"figure.constrained_layout.use": True}):
        chart = QuickChart("a chart", 3, 2, lambda ax: ax.set(xlabel="x"))
        chart.draw(lambda ax: ax.plot([0, 1]), lambda ax: None)
    assert [str(warning.message) for warning in recwarn] == []
    assert tuple(chart.ax.get_position().bounds) == pytest.approx((0.19, 0.19, 0.77, 0.69))
