import json

import pytest

from diffusion_lab.widgets.slider import Slider


def page_has(slider):
    """What the page reads, after the JSON that carries it."""
    return json.loads(json.dumps(slider.get_state(), allow_nan=False, default=str))


def test_values_are_those_of_python_and_of_the_hand(by_hand):
    slider, moves = Slider("S_max", [0.1, 10.0, float("inf")], float("inf")), []
    slider.on_hand(lambda value, moving: moves.append((value, moving)))
    assert page_has(slider)["value"] == "∞" and page_has(slider)["stops"] == [0.1, 10.0, "∞"]
    by_hand(slider, 3.7, moving=True)  # between two stops
    by_hand(slider, 10)
    by_hand(slider, float("inf"))
    slider.value = 0.1
    assert moves == [(3.7, True), (10.0, False), (float("inf"), False)]
    assert isinstance(moves[1][0], float)


def test_whole_numbers_stay_whole(by_hand):
    slider = Slider("members", [1, 2, 4], 2)
    by_hand(slider, 3.0)
    assert slider.value == 3 and isinstance(slider.value, int)
    assert slider.limits == [1, 4]


def test_other_stops_leave_the_value():
    slider = Slider("S_churn", [0.0, 1.0, 8.28], 8.28)
    slider.restrict([0.0, 1.0, 2.07])
    assert slider.value == 8.28 and slider.limits == [0.0, 2.07]


def test_a_callback_may_put_the_value_back_and_the_page_is_told(by_hand, monkeypatch):
    slider, sent = Slider("σ", [1.0, 2.0], 1.0), []
    slider.on_hand(lambda value, moving: setattr(slider, "value", 1.0))
    monkeypatch.setattr(slider, "send_state", lambda key=None: sent.append(set(key)))
    by_hand(slider, 2.0)
    assert slider.value == 1.0
    assert any("heard" in keys for keys in sent)  # or the page would keep the hand's value


def test_words_are_taken_as_they_are(by_hand):
    slider = Slider("start", ["2024-01-01T00", "2024-01-02T00"], "2024-01-01T00")
    by_hand(slider, "2024-01-02T00")
    assert slider.value == "2024-01-02T00" and slider.limits == []


def test_a_box_alone_has_limits():
    assert Slider("seed", [], 0, limits=(0, 9)).limits == [0, 9]
    with pytest.raises(TypeError):
        Slider("seed", [], 0, min=0)
