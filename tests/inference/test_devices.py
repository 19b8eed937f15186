import numpy as np
import pytest

from diffusion_lab.inference.devices import (
    choose_devices,
    chunk_for,
    deal,
    starts_on_devices,
    states_on_devices,
)

START = "2024-12-05"


def test_members_are_dealt_in_whole_chunks():
    assert deal([*range(10)], 4, 2) == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    assert deal([*range(10)], 2, 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert deal([5, 7], 4, 3) == [[5, 7]]


@pytest.mark.parametrize(
    ("members", "devices", "sizes"),
    [
        (50, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"], [13, 13, 13, 11]),
        (64, ["cuda:0", "cuda:1"], [32, 32]),
        (200, ["cuda:0", "cuda:1"], [128, 72]),  # as on one device: 64, 64, 64, 8
        (12, ["cpu", "cpu"], [8, 4]),
        (3, ["cpu"] * 4, [1, 1, 1]),
    ],
)
def test_no_device_is_left_idle_for_a_large_chunk(members, devices, sizes):
    shares = deal([*range(members)], chunk_for(members, devices), len(devices))
    assert [len(share) for share in shares] == sizes


def test_two_processes_forecast_what_one_does(checkpoint, forecaster, toy_store):
    """Bit-equal, churn and all, where the chunks are the same; in others only products round otherwise."""
    few = forecaster.settings.override({"num_steps": 2}, {"S_churn": 0.5})
    options = {"seed": 3, "settings": few, "data": toy_store.path}
    spread = states_on_devices(checkpoint, ["cpu"] * 2, START, 2, range(5), members_per_call=2, **options)
    spread = np.stack(list(spread))
    chunks, at_once = (
        np.stack(list(forecaster.rollout(START, 2, 5, members_per_call=n, **options).states()))
        for n in (2, 5)
    )
    np.testing.assert_array_equal(spread, chunks)
    np.testing.assert_allclose(spread, at_once, rtol=1e-5, atol=1e-5 * at_once.std())


def test_starts_are_dealt_to_two_processes_and_an_error_is_told_in_its_place(
    checkpoint, forecaster, toy_store
):
    starts = np.array([START, "2024-12-20", "2025-01-01", "2030-01-01"], "datetime64[s]")
    few = forecaster.settings.override({"num_steps": 2}, {"S_churn": 0.5})
    options = {"seed": 3, "settings": few, "data": toy_store.path}
    forecasts = starts_on_devices(checkpoint, ["cpu"] * 2, starts, 2, range(2), **options)
    for start in starts[:-1]:
        states, alone = next(forecasts), forecaster.rollout(start, 2, 2, **options).states()
        np.testing.assert_array_equal(np.stack(list(states)), np.stack(list(alone)))
    with pytest.raises(KeyError, match="2030-01-01"):
        next(next(forecasts))


def test_devices_are_counted():
    assert choose_devices(3, "cpu") == ["cpu"] * 3
    with pytest.raises(ValueError, match="'cuda:1' cannot be spread over 2"):
        choose_devices(2, "cuda:1")
    with pytest.raises(ValueError, match="devices = 0"):
        choose_devices(0)
