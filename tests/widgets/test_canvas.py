import matplotlib
import numpy as np
import pytest

from diffusion_lab.widgets.canvas import FieldCanvas, colour_table


def test_a_field_crosses_as_float32_rows():
    canvas = FieldCanvas("temperature", "m s-1")
    canvas.put(np.arange(6.0).reshape(2, 3))
    assert canvas.field == np.arange(6, dtype="<f4").tobytes()
    assert canvas.shape == [2, 3]
    assert canvas.limits == [0.0, 5.0]
    assert canvas.units == "m s⁻¹"
    np.testing.assert_array_equal(canvas.values, [[0, 1, 2], [3, 4, 5]])


def test_the_range_is_that_of_finite_values_or_the_given_one():
    canvas = FieldCanvas()
    canvas.put([[np.nan, 2.0, -3.0]])
    assert canvas.limits == [-3.0, 2.0]
    canvas.put([[1.0]], (-5, 5), title="error", units="K")
    assert (canvas.limits, canvas.title, canvas.units) == ([-5.0, 5.0], "error", "K")
    canvas.put([[np.nan]])
    assert canvas.limits == [0.0, 1.0]


def test_a_field_without_rows_is_refused():
    with pytest.raises(ValueError, match=r"rows and columns, not the shape \(4,\)"):
        FieldCanvas().put(np.zeros(4))


def test_one_message_for_each_field(monkeypatch):
    canvas, messages = FieldCanvas(), []
    monkeypatch.setattr(canvas, "send_state", lambda key=None: messages.append(set(key)))
    canvas.put(np.eye(2) + 1, title="new")
    assert messages == [{"field", "shape", "limits", "title"}]


def test_colours_are_those_of_matplotlib():
    table = np.frombuffer(colour_table("viridis"), np.uint8).reshape(256, 3)
    for level in (0, 100, 255):
        expected = [
            int(matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](level))[i : i + 2], 16)
            for i in (1, 3, 5)
        ]
        assert table[level].tolist() == expected
    with pytest.raises(KeyError):
        colour_table("virdis")
