import pickle

import numpy as np
import pytest
import torch

from diffusion_lab.making import create_store
from diffusion_lab.stores.module import ForecastDataModule, ForecastDataset, StepSampler, forecast_starts
from diffusion_lab.stores.states import Normalizer, StateReader
from diffusion_lab.stores.variables import Variables

HOUR = np.timedelta64(1, "h")


@pytest.fixture
def store(tmp_path, metadata, fields):
    """30 dates, six-hourly; numbers 4 and 25 are missing."""
    return create_store(tmp_path / "s.zarr", metadata, lambda times: fields[times])


@pytest.fixture
def variables(toy_store):
    return Variables.of(toy_store, ["insolation"])


def start_numbers(store, hours, multistep_input, window=None):
    starts = forecast_starts(store, hours * HOUR, multistep_input, window)
    assert starts.dtype == store.dates.dtype
    return [store.index(start) for start in starts]


def test_starts_leave_out_every_sample_that_touches_a_missing_date(store):
    # One input: start s needs s and s + 1, so 3, 4 and 24, 25 go.
    assert start_numbers(store, 6, 1) == [*range(3), *range(5, 24), *range(26, 29)]
    # Two inputs: s - 1, s, s + 1: 3, 4, 5 and 24, 25, 26 go.
    assert start_numbers(store, 6, 2) == [1, 2, *range(6, 24), 27, 28]


def test_longer_steps_reach_over_a_missing_date(store):
    # Two inputs 12 h apart: s - 2, s, s + 2 must be other than 4 and 25.
    expected = [s for s in range(2, 28) if not {s - 2, s, s + 2} & {4, 25}]
    assert start_numbers(store, 12, 2) == expected
    assert 3 in expected  # 1, 3, 5


def test_windows_hold_all_dates_of_a_sample(store):
    # 2024-01-02 is numbers 4 to 7: the inputs, too, lie within it, and 4 is missing.
    assert start_numbers(store, 6, 2, ("2024-01-02", "2024-01-02")) == [6]
    assert start_numbers(store, 6, 1, ("2024-01-02", "2024-01-02")) == [5, 6]


def test_steps_that_do_not_fit_are_refused(store):
    with pytest.raises(ValueError, match="forecast step 9h is not a multiple of the frequency 6h"):
        forecast_starts(store, 9 * HOUR, 1, None)
    with pytest.raises(ValueError, match="forecast step 3h is not a multiple"):
        forecast_starts(store, 3 * HOUR, 1, None)
    message = (
        r"no sample of 2 input states and a target, each 1d apart, .* between 2030-01-01T00:00 and 2031-12-31"
    )
    with pytest.raises(ValueError, match=message):
        forecast_starts(store, 24 * HOUR, 2, ("2030", "2031"))


def test_a_sample_is_the_past_states_and_the_next_one(toy_store, variables):
    starts = toy_store.dates[[10, 20]]
    dataset = ForecastDataset(StateReader(toy_store, variables), starts, 48 * HOUR, 3)
    x, state = dataset[1]
    assert len(dataset) == 2
    assert (x.shape, state.shape) == ((3, 1, 288, 4), (1, 1, 288, 2))
    physical = Normalizer.of(toy_store, variables.input).denormalise(x)
    raw = torch.from_numpy(toy_store.read([16, 18, 20], ["t850", "msl"])).permute(0, 2, 3, 1)
    torch.testing.assert_close(physical[..., :2], raw, rtol=1e-6, atol=0)
    physical = Normalizer.of(toy_store, variables.output).denormalise(state)
    raw = torch.from_numpy(toy_store.read(22, ["t850", "msl"])).permute(0, 2, 3, 1)
    torch.testing.assert_close(physical, raw, rtol=1e-6, atol=0)


def test_every_epoch_is_a_permutation_and_each_another():
    stream = list(StepSampler(num_samples=7, batch_size=3, num_steps=14, seed=1))
    assert len(stream) == 42
    epochs = [tuple(stream[i : i + 7]) for i in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) == 6


@pytest.mark.parametrize("done", [0, 1, 2, 5, 13, 14])
def test_resuming_gives_the_tail_of_the_uncut_stream(done):
    uncut = list(StepSampler(7, 3, 14, seed=1))
    resumed = StepSampler(7, 3, 14, seed=1, first_step=done)
    assert list(resumed) == uncut[3 * done :]
    assert list(resumed) == uncut[3 * done :]  # and again: it has no state
    assert len(resumed) == 42


def test_a_longer_training_begins_like_a_shorter_one():
    assert list(StepSampler(7, 3, 20, seed=1))[:42] == list(StepSampler(7, 3, 14, seed=1))
    assert list(StepSampler(7, 3, 14, seed=2)) != list(StepSampler(7, 3, 14, seed=1))


def test_batches_larger_than_the_data():
    stream = list(StepSampler(num_samples=2, batch_size=5, num_steps=2, seed=0))
    assert [sorted(stream[i : i + 2]) for i in range(0, 10, 2)] == [[0, 1]] * 5


def test_windows_and_thinning_of_the_module(toy_store, variables):
    module = ForecastDataModule(
        toy_store,
        variables,
        ("2024-03", "2024-03"),
        ("2024-04", "2024-04"),
        batch_size=3,
        num_steps=2,
        validation_starts=4,
    )
    days = module.train_set.starts.astype("datetime64[D]")
    assert days.tolist() == np.arange("2024-03-02", "2024-03-31", dtype="datetime64[D]").tolist()
    # Starts 2 … 8, 12 … 29 April (10 April is missing); 4 of the 25 evenly: numbers 0, 8, 16, 24.
    days = module.validation_set.starts.astype("datetime64[D]").astype(str)
    assert list(days) == ["2024-04-02", "2024-04-13", "2024-04-21", "2024-04-29"]
    batches = list(module.train_dataloader())
    assert [x.shape for x, _ in batches] == [(3, 2, 1, 288, 4)] * 2
    order = list(StepSampler(29, 3, 2, seed=0))
    torch.testing.assert_close(batches[1][0][0], module.train_set[order[3]][0])
    assert [x.shape[0] for x, _ in module.val_dataloader()] == [1] * 4


def test_workers_can_be_sent_the_data(toy_store, variables):
    module = ForecastDataModule(toy_store, variables, ("2024-03", "2024-03"), ("2024-05", "2024-05"))
    sent = pickle.loads(pickle.dumps(module.train_set))
    torch.testing.assert_close(sent[4][0], module.train_set[4][0], rtol=0, atol=0)
