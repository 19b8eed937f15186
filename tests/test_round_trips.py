"""Properties that hold for any input: what is written is read, keys are independent, scores are numpy's."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from diffusion_lab import schedules
from diffusion_lab.making import StoreMetadata, Variable, create_store
from diffusion_lab.noise import MemberNoise
from diffusion_lab.stores.dates import lead_name, lead_timedelta
from diffusion_lab.verification.ensemble import fair_crps

FEW = settings(max_examples=15, deadline=None, derandomize=True)
MANY = settings(max_examples=100, deadline=None, derandomize=True)
float32 = st.floats(-1e6, 1e6, width=32)
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@FEW
@given(st.data())
def test_a_store_holds_what_was_written(data):
    shape = data.draw(array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5))
    fields = data.draw(arrays(np.float32, (shape[0] + 2, *shape[1:]), elements=float32))
    variables = data.draw(st.lists(names, min_size=shape[1], max_size=shape[1], unique=True))
    hours = data.draw(st.integers(1, 48))
    dates = np.datetime64("1850-02-27", "s") + np.arange(len(fields)) * np.timedelta64(hours, "h")
    absent = data.draw(st.sets(st.integers(1, len(fields) - 1), max_size=len(fields) - 2))
    metadata = StoreMetadata(
        [Variable(name, "K") for name in variables],
        dates,
        np.linspace(-80, 80, shape[2]),
        np.linspace(0, 300, shape[2]),
        (shape[2],),
        "any",
        statistics_window=(dates[0], dates[-1]),
        missing_dates=dates[sorted(absent)],
    )
    with tempfile.TemporaryDirectory() as folder:
        chunk = data.draw(st.integers(1, len(fields)))
        store = create_store(Path(folder) / "s.zarr", metadata, lambda block: fields[block], chunk)
        expected = fields.copy()
        expected[sorted(absent)] = np.nan
        np.testing.assert_array_equal(store.read(slice(None))[:, :, 0], expected)
        np.testing.assert_array_equal(store.dates, dates)
        assert store.variables == tuple(variables)
        double = expected.astype(np.float64)
        np.testing.assert_allclose(store.statistics.mean, np.nanmean(double, (0, 2)), rtol=1e-9, atol=1e-9)
        spread = np.nanstd(double, (0, 2))
        np.testing.assert_allclose(
            store.statistics.stdev, spread, rtol=1e-6, atol=1e-9 * np.abs(fields).max()
        )


@MANY
@given(st.integers(1, 10**9))
def test_the_name_of_a_lead_time_reads_back(seconds):
    assert lead_timedelta(lead_name(np.timedelta64(seconds, "s"))) == np.timedelta64(seconds, "s")


@MANY
@given(
    st.sampled_from(["karras", "linear", "exponential", "cosine"]),
    st.integers(1, 200),
    st.floats(1e-3, 1e3),
    st.floats(1.01, 1e4),
)
def test_schedules_run_from_sigma_max_to_sigma_min_and_are_accepted_as_manual(name, steps, sigma_min, ratio):
    sigmas = schedules.SCHEDULES[name](steps, sigma_min * ratio, sigma_min)
    assert (len(sigmas), sigmas[-1]) == (steps + 1, 0)
    assert math.isclose(sigmas[0], sigma_min * ratio, rel_tol=1e-9)
    assert steps == 1 or math.isclose(sigmas[-2], sigma_min, rel_tol=1e-6)
    assert torch.equal(schedules.manual(sigmas[:-1]), sigmas)


key = st.tuples(*[st.integers(0, 2**40) for _ in range(5)])


@MANY
@given(key, key)
def test_noise_belongs_to_its_key_alone(one, other):
    def noise(seed, start, lead, member, draw, beside=()):
        return MemberNoise(seed).at(start, lead, [*beside, member], (1, 4, 2))(draw)[:, :, -1]

    assert torch.equal(noise(*one), noise(*one, beside=[other[3]]))
    assert torch.equal(noise(*one), noise(*other)) == (one == other)


@MANY
@given(arrays(np.float64, st.tuples(st.integers(2, 9), st.integers(1, 5)), elements=float32), st.data())
def test_fair_crps_is_that_of_numpy(members, data):
    truth = data.draw(arrays(np.float64, members.shape[1], elements=float32))
    count = len(members)
    pairs = np.abs(members[:, None] - members[None]).sum((0, 1)) / (2 * count * (count - 1))
    expected = np.abs(members - truth).mean(0) - pairs
    actual = fair_crps(torch.from_numpy(members), torch.from_numpy(truth), dim=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-6)
