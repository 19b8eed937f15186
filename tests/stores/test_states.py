import numpy as np
import pytest
import torch
import zarr

from diffusion_lab.making import create_store
from diffusion_lab.stores import compute_forcing, open_store
from diffusion_lab.stores.states import Normalizer, StateReader
from diffusion_lab.stores.variables import Variables

DAYS = np.datetime64("2024-01-01", "s") + np.arange(1000) * np.timedelta64(86400, "s")


@pytest.fixture
def reader(toy_store):
    return StateReader(toy_store, Variables(["msl", "t850"], ["insolation", "orography"]))


def test_inputs_are_in_the_order_of_the_variables(reader, toy_store):
    states = reader.inputs(DAYS[[3, 8]])
    assert states.shape == (2, 1, 288, 4)
    raw = toy_store.read([3, 8], ["t850", "msl", "orography"])
    np.testing.assert_array_equal(states[:, 0, :, 0], raw[:, 1, 0])
    np.testing.assert_array_equal(states[:, 0, :, 1], raw[:, 0, 0])
    np.testing.assert_array_equal(states[:, 0, :, 3], raw[:, 2, 0])
    sunlight = compute_forcing("insolation", DAYS[[3, 8]], toy_store.latitudes, toy_store.longitudes)
    np.testing.assert_array_equal(states[:, 0, :, 2], sunlight)


def test_outputs_leave_forcings_out(toy_store):
    reader = StateReader(toy_store, Variables(["msl"], ["orography"], ["t850"]))
    outputs = reader.outputs(DAYS[[9]])
    assert outputs.shape == (1, 1, 288, 2)
    np.testing.assert_array_equal(outputs[0, 0].T, toy_store.read(9, ["msl", "t850"])[0, :, 0])
    assert reader.inputs(DAYS[[9]]).shape == (1, 1, 288, 2)


def test_forcings_beyond_the_store(reader, toy_store):
    beyond = DAYS[[500, 900]]
    assert beyond[0] > toy_store.dates[-1]
    forcings = reader.forcings(beyond)
    assert forcings.shape == (2, 288, 2)
    sunlight = compute_forcing("insolation", beyond, toy_store.latitudes, toy_store.longitudes)
    np.testing.assert_array_equal(forcings[..., 0], sunlight)
    orography = toy_store.read(0, ["orography"])[0, 0, 0]
    np.testing.assert_array_equal(forcings[..., 1], np.tile(orography, (2, 1)))


def test_forcings_are_those_of_the_inputs(reader):
    dates = DAYS[[0, 50]]
    np.testing.assert_array_equal(reader.forcings(dates), reader.inputs(dates)[:, 0, :, 2:])


def test_prescribed_forcings_need_their_dates(toy_store):
    reader = StateReader(toy_store, Variables(["t850"], ["msl"]))
    np.testing.assert_array_equal(reader.forcings(DAYS[[7]])[0, :, 0], toy_store.read(7, ["msl"])[0, 0, 0])
    with pytest.raises(KeyError, match=r"no date 2026-.*; its dates run from 2024-01-01"):
        reader.forcings(DAYS[[900]])


def test_a_constant_is_found_where_the_first_date_is_missing(tmp_path, metadata, fields):
    metadata.missing_dates[:] = metadata.dates[[0, 1]]
    store = create_store(tmp_path / "s.zarr", metadata, lambda times: fields[times])
    reader = StateReader(store, Variables(["z500"], ["orography"]))
    np.testing.assert_array_equal(reader.forcings(DAYS[[999]])[0, :, 0], np.arange(12))


def test_what_only_the_attribute_constant_fields_calls_constant_is_one(tmp_path, metadata, fields):
    path = tmp_path / "s.zarr"
    create_store(path, metadata, lambda times: fields[times])
    group = zarr.open_group(path, mode="r+", zarr_format=2)
    about = group.attrs["variables_metadata"]
    del about["orography"]["constant_in_time"]
    group.attrs.update({"variables_metadata": about, "constant_fields": ["orography"]})
    zarr.consolidate_metadata(path, zarr_format=2)
    store = open_store(path)
    assert store.constants == {"orography"}
    reader = StateReader(store, Variables(["z500"], ["orography"]))
    np.testing.assert_array_equal(reader.forcings(DAYS[[999]])[0, :, 0], np.arange(12))


def test_what_the_store_lacks_is_named(toy_store):
    with pytest.raises(KeyError, match="lacks q, tp; it has t850, msl, orography"):
        StateReader(toy_store, Variables(["t850", "q"], ["insolation"], ["tp"]))


def test_members_of_a_store_keep_their_order(tmp_path, metadata, fields):
    path = tmp_path / "members.zarr"
    create_store(path, metadata, lambda times: fields[times])
    group = zarr.open_group(path, mode="r+", zarr_format=2)
    one = group["data"][:]
    three = np.concatenate([one, one + 1, one + 2], axis=2)
    group.create_array("data", data=three, chunks=(5, 3, 3, 12), overwrite=True)
    zarr.consolidate_metadata(path, zarr_format=2)
    store = open_store(path)
    assert store.ensemble_size == 3
    reader = StateReader(store, Variables(["z500"], ["cos_latitude"], ["t850"]))
    dates = store.dates[[6, 7]]
    states = reader.inputs(dates)
    assert states.shape == (2, 3, 12, 2)
    np.testing.assert_array_equal(states[:, 2, :, 0], fields[[6, 7], 0] + 2)
    cos = np.cos(np.deg2rad(store.latitudes))
    np.testing.assert_allclose(states[..., 1], np.broadcast_to(cos, (2, 3, 12)), atol=1e-6)
    np.testing.assert_array_equal(
        reader.outputs(dates)[1, :, :, 1], fields[7, 1] + np.arange(3, dtype=np.float32)[:, None]
    )


def test_normalised_by_hand_and_back():
    normalizer = Normalizer(torch.tensor([280.0, 1e5]), torch.tensor([10.0, 500.0]))
    x = torch.tensor([[285.0, 99_000.0], [260.0, 100_250.0]])
    normalised = normalizer.normalise(x)
    torch.testing.assert_close(normalised, torch.tensor([[0.5, -2.0], [-2.0, 0.5]]))
    torch.testing.assert_close(normalizer.denormalise(normalised), x)
    assert normalizer.normalise(x.double()).dtype == torch.float64


def test_statistics_are_those_of_the_store(toy_store):
    normalizer = Normalizer.of(toy_store, ["msl", "insolation", "t850"])
    mean = toy_store.statistics.mean
    np.testing.assert_allclose(normalizer.mean, [mean[1], 0.0, mean[0]], rtol=1e-6)
    year = toy_store.read(np.flatnonzero(~toy_store.missing)[:365], ["msl", "t850"]).astype(np.float64)
    normalised = normalizer.normalise(torch.from_numpy(np.insert(year, 1, 0.5, axis=1).swapaxes(1, 3)))
    torch.testing.assert_close(normalised[..., 1], torch.full_like(normalised[..., 1], 0.5))
    for column in (0, 2):
        assert normalised[..., column].mean().item() == pytest.approx(0, abs=1e-4)
        assert normalised[..., column].std().item() == pytest.approx(1, abs=1e-4)


def test_what_never_varies_cannot_be_normalised(tmp_path, metadata, fields):
    fields[:, 1] = 250.0
    store = create_store(tmp_path / "s.zarr", metadata, lambda times: fields[times])
    with pytest.raises(ValueError, match=r"'t850' has the standard deviation 0 in .*; leave it out"):
        Normalizer.of(store, ["z500", "t850"])
    with pytest.raises(ValueError, match="stdev must be positive"):
        Normalizer(torch.zeros(2), torch.tensor([1.0, -1.0]))
