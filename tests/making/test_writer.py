import errno
import filecmp
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffusion_lab.making import StoreWriter, Variable, create_store
from diffusion_lab.making import writer as writer_module
from diffusion_lab.stores.store import open_store


def assert_same_files(one, other):
    names = sorted(str(p.relative_to(one)) for p in Path(one).rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(other)) for p in Path(other).rglob("*") if p.is_file())
    assert filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def test_an_unfinished_store_does_not_open(tmp_path, metadata):
    StoreWriter(tmp_path / "s.zarr", metadata)
    assert not (tmp_path / "s.zarr").exists()
    with pytest.raises(ValueError, match=r"not finished.*resume"):
        open_store(tmp_path / "s.zarr.partial")


def test_finished_store_is_left_alone(tmp_path, metadata, fields):
    path = tmp_path / "s.zarr"
    create_store(path, metadata, lambda block: fields[block])
    before = {p: p.stat().st_mtime_ns for p in (path / "data").iterdir()}
    writer = StoreWriter(path, metadata)
    assert writer.remaining() == []
    assert writer.close().variables == ("z500", "t850", "orography")
    assert before == {p: p.stat().st_mtime_ns for p in (path / "data").iterdir()}


def test_does_not_overwrite_anything_else(tmp_path, metadata, fields):
    path = tmp_path / "s.zarr"
    create_store(path, metadata, lambda block: fields[block])
    with pytest.raises(FileExistsError, match=r"s\.zarr.*not made from this recipe"):
        StoreWriter(path, replace(metadata, resolution="other"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="folder"):
        StoreWriter(tmp_path / "folder", metadata)
    with pytest.raises(FileExistsError, match="thesis"):
        StoreWriter(tmp_path / "folder" / "thesis.tex", metadata)
    assert (tmp_path / "folder" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("name", ["sub/movie.mp4.partial", "movie.mp4.partial", "sub/.zgroup"])
def test_what_is_not_ours_is_neither_removed_nor_taken_for_an_empty_folder(tmp_path, metadata, name):
    theirs = tmp_path / "folder" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    for path in (tmp_path / "folder", theirs):
        with pytest.raises(FileExistsError, match="folder"):
            StoreWriter(path, metadata)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
    assert theirs.read_text() == "precious"


UNFINISHED = "0123456789abcdef0123456789abcdef.partial"


@pytest.mark.parametrize(
    "names", [[f".zgroup.{UNFINISHED}"], [".zgroup", ".zattrs", f".zattrs.{UNFINISHED}"]]
)
def test_killed_before_it_had_a_name_it_begins_afresh(tmp_path, metadata, names):
    path = tmp_path / "s.zarr.partial"
    path.mkdir()
    contents = {".zgroup": '{"zarr_format": 2}', ".zattrs": "{}"}
    for name in names:
        (path / name).write_text(contents.get(name, "half a fi"))
    assert StoreWriter(tmp_path / "s.zarr", metadata).remaining()[0].start == 0
    assert not list(path.rglob("*.partial"))


def test_what_an_interrupted_write_left_is_removed_from_its_own_store(tmp_path, metadata):
    path = tmp_path / "s.zarr.partial"
    StoreWriter(tmp_path / "s.zarr", metadata)
    left, theirs = path / "data" / f"0.0.0.{UNFINISHED}", path / "notes.partial"
    left.write_text("half a chunk")
    theirs.write_text("precious")
    StoreWriter(tmp_path / "s.zarr", metadata)
    assert not left.exists()
    assert theirs.read_text() == "precious"


def test_a_full_disk_names_the_store_and_what_is_kept(tmp_path, metadata, fields, monkeypatch):
    monkeypatch.setattr(writer_module, "_BLOCK_BYTES", 2500)
    path = tmp_path / "s.zarr"
    writer = StoreWriter(path, metadata, chunk_times=4)
    first, second = writer.remaining()
    writer.write(first, fields[first])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zarr.Array.__setitem__", full)
        with pytest.raises(
            OSError, match=r"No space left .* dates from 2024-01-05T00:00 on of .*s\.zarr'.*kept"
        ):
            writer.write(second, fields[second])
    again = StoreWriter(path, metadata, chunk_times=4)
    assert again.remaining() == [second]
    again.write(second, fields[second])
    np.testing.assert_array_equal(again.close().read(29)[0, :, 0], fields[29])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"t850 is nan at 2024-01-02T12:00, cell 5 \(latitude 0, longitude 90\)"),
        (1e39, "t850 is inf"),
    ],
)
def test_value_that_is_not_finite(tmp_path, metadata, fields, value, message):
    fields = fields.astype(np.float64)
    fields[6, 1, 5] = value
    with pytest.raises(ValueError, match=message):
        create_store(tmp_path / "s.zarr", metadata, lambda block: fields[block])


def test_nan_where_it_is_allowed(tmp_path, metadata, fields):
    fields[6, 1, 5] = np.nan
    variables = [metadata.variables[0], Variable("t850", "K", allow_nan=True), metadata.variables[2]]
    store = create_store(
        tmp_path / "s.zarr", replace(metadata, variables=variables), lambda block: fields[block]
    )
    assert np.isnan(store.read(6)[0, 1, 0, 5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"missing_dates": ["2024-01-01T01"]}, "missing date 2024-01-01T01:00 is not one of"),
        ({"tendency_leads": ["9h"]}, r"leads 9h are not multiples of the frequency 6h"),
        ({"statistics_window": ("1999", "2000")}, "No date is in the statistics window 1999 to 2000"),
        ({"field_shape": (4, 4)}, r"12 latitudes.*\(4, 4\)"),
        ({"variables": [Variable("t", "K"), Variable("t", "K")]}, "different names"),
    ],
)
def test_inconsistent_metadata(tmp_path, metadata, change, message):
    with pytest.raises(ValueError, match=message):
        StoreWriter(tmp_path / "s.zarr", replace(metadata, **change))
    assert not (tmp_path / "s.zarr").exists()


def test_unknown_role():
    with pytest.raises(ValueError, match=r"t: unknown role 'input'.*forcing, prognostic, diagnostic"):
        Variable("t", "K", "input")


def test_blocks_are_whole_chunks_and_written_in_order(tmp_path, metadata, fields, monkeypatch):
    monkeypatch.setattr(writer_module, "_BLOCK_BYTES", 2500)
    writer = StoreWriter(tmp_path / "s.zarr", metadata, chunk_times=4)
    blocks = writer.remaining()
    assert [(block.start, block.stop) for block in blocks] == [(0, 16), (16, 30)]
    with pytest.raises(ValueError, match="out of order"):
        writer.write(blocks[1], fields[blocks[1]])
    with pytest.raises(ValueError, match=r"\(15, 3, 12\), not \(16, 3, 12\)"):
        writer.write(blocks[0], fields[:15])
    with pytest.raises(ValueError, match="from index 0 on"):
        writer.close()


SLOW_WRITER = """
    import sys, time
    import numpy as np
    from diffusion_lab.making import writer
    from diffusion_lab.making import StoreMetadata, Variable, create_store
    writer._BLOCK_BYTES = 1

    def read(block):
        rng = np.random.default_rng(block.start)
        values = (rng.normal(size=(block.stop - block.start, 2, 300)) + 1e5).astype(np.float32)
        values[:, 1, 7] = np.nan
        return values

    dates = np.datetime64("2024-01-01") + np.arange(120) * np.timedelta64(6, "h")
    variables = [Variable("msl", "Pa"), Variable("sst", "K", allow_nan=True)]
    places = np.linspace(-80, 80, 300)
    window = ("2024-01-02", "2024-01-25")
    metadata = StoreMetadata(
        variables, dates, places, places, (300,), "300", window, missing_dates=dates[[50]]
    )
    print("begin", flush=True)
    create_store(sys.argv[1], metadata, read, chunk_times=2)
"""


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(tmp_path):
    script = tmp_path / "create.py"
    script.write_text(textwrap.dedent(SLOW_WRITER))
    command = [sys.executable, str(script)]
    subprocess.run([*command, str(tmp_path / "whole.zarr")], check=True, stdout=subprocess.DEVNULL)
    rng = np.random.default_rng()
    kills = 0
    for _ in range(50):
        process = subprocess.Popen([*command, str(tmp_path / "killed.zarr")], stdout=subprocess.PIPE)
        process.stdout.readline()
        try:
            process.wait(timeout=rng.uniform(0.02, 0.25) if kills < 3 else None)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        process.stdout.close()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills >= 1
    assert_same_files(tmp_path / "whole.zarr", tmp_path / "killed.zarr")
