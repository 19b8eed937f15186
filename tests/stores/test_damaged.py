"""Stores that were damaged or made to do harm: each is refused by name."""

import json
import pickle

import numcodecs
import numpy as np
import pytest
import zarr

from diffusion_lab.commands.cli import main
from diffusion_lab.making.writer import create_store
from diffusion_lab.stores.climatology import Climatology
from diffusion_lab.stores.reading import check_group
from diffusion_lab.stores.store import open_store


@pytest.fixture
def path(tmp_path, metadata, fields):
    create_store(tmp_path / "s.zarr", metadata, lambda block: fields[block], chunk_times=4)
    return tmp_path / "s.zarr"


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def set_attribute(path, name, value):
    (path / ".zmetadata").unlink()
    edit(path / ".zattrs", lambda attributes: attributes.update({name: value}))


def set_statistic(path, name, value):
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group[name][1] = value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("constant_fields", 3),
        ("variables_metadata", ["z500"]),
        ("variables_metadata", {"z500": "K"}),
        ("variables", "z500"),
        ("missing_dates", ["yesterday"]),
        ("field_shape", [5, 5]),
        ("roles", {"t850": "input"}),
    ],
)
def test_attribute_of_a_wrong_type(path, name, value):
    set_attribute(path, name, value)
    with pytest.raises(ValueError, match=rf"s\.zarr'.*attribute.*{name}|attribute {name} .*s\.zarr'"):
        open_store(path)


@pytest.mark.parametrize("name", ["stdev", "statistics_tendencies_6h_stdev"])
@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_statistics_that_cannot_be(path, name, value):
    set_statistic(path, name, value)
    with pytest.raises(ValueError, match=rf"s\.zarr'.*of t850 are mean .*stdev {value:g}"):
        open_store(path).tendency_statistics("6h")


def test_a_damaged_chunk_names_array_and_dates(path, capsys):
    chunk = path / "data" / "2.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"array 'data' of the store .*s\.zarr' from 2024-01-03T00:00 to"):
        open_store(path).read(9)
    (path / "latitudes" / "0").write_bytes(b"rubbish")
    assert main(["data", "inspect", str(path)]) == 2
    captured = capsys.readouterr().err
    assert "array 'latitudes' of the store" in captured and "copy it again" in captured
    assert captured.count("\n") == 1


@pytest.mark.parametrize("value", ["text", {"shape": 3}, {"dtype": None}, {"chunks": [0, 3, 1, 12]}])
def test_array_metadata_of_a_wrong_type(path, value):
    (path / ".zmetadata").unlink()
    if isinstance(value, dict):
        edit(path / "data" / ".zarray", lambda content: content.update(value))
    else:
        (path / "data" / ".zarray").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"s\.zarr"):
        open_store(path).read(0)


class Harm:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["data", "dates", "statistics_tendencies_6h_mean"])
@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_no_store_runs_code(path, tmp_path, name, place, monkeypatch):
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    (path / ".zmetadata").unlink()
    pickled = {"id": "pickle", "protocol": 4}
    change: dict = {"dtype": "<M8[s]", "fill_value": 0}  # zarr itself refuses it for numbers
    change |= {"filters": [pickled]} if place == "filters" else {"filters": None, "compressor": pickled}
    edit(path / name / ".zarray", lambda content: content.update(change))
    for chunk in (path / name).glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    with pytest.raises(ValueError, match=rf"array '{name}' of the store .* codec 'pickle', which"):
        open_store(path).tendency_statistics("6h")
    with pytest.raises(ValueError, match="codec 'pickle'"):
        check_group(str(path))
    assert not (tmp_path / "harm").exists()


def test_codecs_inside_shards_are_checked(tmp_path):
    group = zarr.open_group(tmp_path / "v3.zarr", mode="w", zarr_format=3)
    group.create_array("data", shape=(4,), dtype="f4", shards=(4,), chunks=(2,))
    check_group(str(tmp_path / "v3.zarr"))

    def harm(content):
        content["codecs"][0]["configuration"]["codecs"].append({"name": "numcodecs.pickle"})

    edit(tmp_path / "v3.zarr" / "data" / "zarr.json", harm)
    with pytest.raises(ValueError, match="pickle"):
        check_group(str(tmp_path / "v3.zarr"))


def test_damaged_climatology(tmp_path):
    file = tmp_path / "c.npz"
    Climatology(("t",), np.array([0]), np.ones((1, 5, 1, 3), np.float32)).save(file)
    assert Climatology.load(file).variables == ("t",)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"climatology .*c\.npz"):
        Climatology.load(file)
