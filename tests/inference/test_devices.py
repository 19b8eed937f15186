import numpy as np
import pytest
import xarray as xr

from diffusion_lab.inference.devices import choose_devices, deal, forecasts_on_devices, states_on_devices

START = "2024-12-05"
FEW = {"noise_scheduler_params": {"num_steps": 2}, "sampler_params": {"S_churn": 0.5}}


def test_members_are_dealt_in_whole_chunks():
    assert deal([*range(10)], 4, 2) == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    assert deal([*range(10)], 2, 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert deal([5, 7], 4, 3) == [[5, 7]]


def test_two_processes_forecast_what_one_does(checkpoint, forecaster, toy_store):
    """Members and starts over two processes: bit-equal, churn and all, since the chunks are the same."""
    members = range(5)
    options = {"seed": 3, "data": toy_store.path, **FEW}
    alone = list(forecaster.states(START, 2, members, members_per_call=2, **options))
    spread = list(
        states_on_devices(checkpoint, ["cpu", "cpu"], START, 2, members, members_per_call=2, **options)
    )
    np.testing.assert_array_equal(np.stack(spread), np.stack(alone))

    starts = [np.datetime64(START), np.datetime64("2024-12-20"), np.datetime64("2025-01-01")]
    forecasts = forecasts_on_devices(checkpoint, ["cpu", "cpu"], starts, 1, range(2), **options)
    for start, forecast in zip(starts, forecasts, strict=True):
        xr.testing.assert_identical(forecast, forecaster.forecast(start, 1, 2, **options))


def test_an_error_of_a_process_is_told_here(checkpoint, toy_store):
    states = states_on_devices(checkpoint, ["cpu"], "2030-01-01", 1, range(2), data=toy_store.path)
    with pytest.raises(KeyError, match="2030-01-01"):
        next(states)


def test_devices_are_counted():
    assert choose_devices(3) == ["cpu"] * 3
    with pytest.raises(ValueError, match="devices = 0"):
        choose_devices(0)
