import pickle
import shutil

import fsspec
import numpy as np
import pytest
import zarr

from diffusion_lab.making.writer import create_store
from diffusion_lab.stores.store import open_store

MISSING = [4, 25]


@pytest.fixture
def path(tmp_path, metadata, fields):
    target = tmp_path / "s.zarr"
    create_store(target, metadata, lambda block: fields[block], chunk_times=4)
    return target


def with_holes(fields):
    fields = fields.copy()
    fields[MISSING] = np.nan
    return fields[:, :, np.newaxis]


def test_describes_itself(path, metadata):
    store = open_store(path)
    assert store.variables == ("z500", "t850", "orography")
    assert store.roles == {"z500": "prognostic", "t850": "diagnostic", "orography": "forcing"}
    assert store.frequency == np.timedelta64(6, "h")
    assert store.dates.dtype == "datetime64[s]"
    np.testing.assert_array_equal(store.dates, metadata.dates)
    np.testing.assert_array_equal(np.flatnonzero(store.missing), MISSING)
    np.testing.assert_array_equal(store.longitudes, metadata.longitudes)
    assert (store.field_shape, store.ensemble_size) == ((3, 4), 1)
    assert store.units("z500") == "m2 s-2"


@pytest.mark.parametrize("index", [0, -1, slice(3, 9), slice(None, None, 7), [29, 2, 2], np.array([4, 5])])
def test_reads_what_was_written(path, fields, index):
    values = open_store(path).read(index)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.atleast_1d(with_holes(fields)[index]).reshape(-1, 3, 1, 12))


def test_reads_variables_in_the_order_asked_for(path, fields):
    values = open_store(path).read(slice(2, 7), ["orography", "z500"])
    np.testing.assert_array_equal(values, with_holes(fields)[2:7, [2, 0]])


def test_reads_no_more_than_it_must(path, fields):
    # Only the chunk of dates 8 to 11 is left; everything else reads as lost.
    store = open_store(path)
    for chunk in (path / "data").glob("[0-9]*"):
        if chunk.name != "2.0.0.0":
            chunk.unlink()
    np.testing.assert_array_equal(store.read(slice(8, 12)), with_holes(fields)[8:12])
    with pytest.raises(ValueError, match="cut short or is damaged: 2024-01-04T00:00 holds no data"):
        store.read(12)
    assert np.isnan(store.read(4)).all()
    assert store.lost_chunks() == 7


def test_keeps_decoded_chunks_within_its_bounds(path, fields, monkeypatch):
    chunk = 4 * 3 * 12 * 4  # bytes of four dates, three variables, twelve cells
    monkeypatch.setattr("diffusion_lab.stores.store.CACHE_BYTES", 2 * chunk)
    store = open_store(path)
    for index in np.random.default_rng(0).integers(0, 30, 100):
        np.testing.assert_array_equal(store.read(int(index))[0], with_holes(fields)[index])
        assert sum(kept.nbytes for kept in store._chunks.values()) <= 2 * chunk
    shutil.rmtree(path / "data")  # what was read last is still at hand
    np.testing.assert_array_equal(store.read(int(index))[0], with_holes(fields)[index])


def test_index_of_a_date(path):
    store = open_store(path)
    assert store.index("2024-01-02T06:00") == 5
    for stranger in ("2024-01-02T07", "2023-12-31T18", "2024-02-01"):
        with pytest.raises(KeyError, match=r"from 2024-01-01T00:00 to 2024-01-08T06:00 every 6h"):
            store.index(stranger)


def test_statistics_are_those_of_the_window(path, fields):
    inside = with_holes(fields)[:20].astype(np.float64)
    store = open_store(path)
    assert store.tendency_leads == ("6h", "12h", "1d")
    for statistics, values in (
        (store.statistics, inside),
        (store.tendency_statistics("12h"), inside[2:] - inside[:-2]),
        (store.tendency_statistics("24h"), inside[4:] - inside[:-4]),
    ):
        np.testing.assert_allclose(statistics.mean[:2], np.nanmean(values, (0, 2, 3))[:2], rtol=1e-12)
        np.testing.assert_allclose(statistics.stdev, np.nanstd(values, (0, 2, 3)), rtol=1e-12)
        np.testing.assert_array_equal(statistics.maximum, np.nanmax(values, (0, 2, 3)))
    with pytest.raises(KeyError, match=r"no tendency statistics for the lead '2d'; it has 6h, 12h, 1d"):
        store.tendency_statistics("2d")


def test_roles_can_be_given(path):
    store = open_store(path, roles={"t850": "prognostic"})
    assert store.roles == {"z500": "prognostic", "t850": "prognostic", "orography": "forcing"}
    assert open_store(path).with_roles(diagnostic=["z500"], forcing=["t850"]).roles["t850"] == "forcing"
    with pytest.raises(KeyError, match="no variable 't500'; it has z500, t850, orography"):
        store.with_roles(forcing=["t500"])
    with pytest.raises(ValueError, match="more than once: t850"):
        store.with_roles(forcing=["t850"], diagnostic=["t850"])
    with pytest.raises(ValueError, match="forcing, prognostic, diagnostic"):
        open_store(path, roles={"t850": "input"})


def test_roles_from_anemoi_metadata(path):
    group = zarr.open_group(path, mode="r+", zarr_format=2, use_consolidated=False)
    attributes = dict(group.attrs)
    del attributes["roles"]
    attributes["variables_metadata"]["t850"]["computed_forcing"] = True
    group.attrs.put(attributes)
    zarr.consolidate_metadata(path, zarr_format=2)
    assert open_store(path).roles == {"z500": "prognostic", "t850": "forcing", "orography": "forcing"}


def test_lazy_dataset(path, fields):
    dataset = open_store(path).to_xarray()
    assert dataset["z500"].dims == ("time", "ensemble", "cell")
    assert dataset["z500"].chunks is not None
    assert dataset["z500"].attrs == {"units": "m2 s-2", "role": "prognostic"}
    np.testing.assert_array_equal(dataset["t850"].sel(time="2024-01-02T06").values, fields[5, 1][np.newaxis])
    np.testing.assert_array_equal(dataset["latitude"].values[[0, 4, 8]], [60, 0, -60])
    assert np.isnan(dataset["z500"].isel(time=4)).all()


def test_zarr_v3_and_urls(path, fields, tmp_path):
    source = zarr.open_group(path, mode="r")
    target = zarr.open_group(tmp_path / "v3.zarr", mode="w", zarr_format=3)
    target.attrs.put(dict(source.attrs))
    for name, array in source.arrays():
        target.create_array(name, data=array[:])
    fsspec.filesystem("memory").put(str(path), "/remote.zarr", recursive=True)
    for url in (str(tmp_path / "v3.zarr"), f"file://{path}", "memory://remote.zarr"):
        store = open_store(url)
        np.testing.assert_array_equal(store.read(slice(None)), with_holes(fields))
        assert store.dates[1] == np.datetime64("2024-01-01T06")
        assert store.tendency_leads == ("6h", "12h", "1d")


def test_crosses_to_a_worker_process(path, fields):
    store = open_store(path, roles={"t850": "forcing"})
    again = pickle.loads(pickle.dumps(store))
    assert again.roles == store.roles
    np.testing.assert_array_equal(again.read(3), with_holes(fields)[3:4])


def test_errors_name_what_is_wrong(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No zarr store at .*none\.zarr"):
        open_store(tmp_path / "none.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=2)
    with pytest.raises(ValueError, match="it lacks the attribute variables, data, dates"):
        open_store(tmp_path / "other.zarr")
    shorter = shutil.copytree(path, tmp_path / "short.zarr")
    group = zarr.open_group(shorter, mode="r+", zarr_format=2, use_consolidated=False)
    group["data"].resize((20, 3, 1, 12))
    zarr.consolidate_metadata(shorter, zarr_format=2)
    with pytest.raises(ValueError, match=r"cut short.*\(20, 3, 1, 12\).*dates \(30,\)"):
        open_store(shorter)
