"""Writing a store: zarr v2 in the layout of anemoi-datasets, block by block, resuming where it stopped.

The store is written as `NAME.partial` and renamed once it is complete. The same metadata and fields give the
same bytes, whether or not the work was interrupted: nothing that is stored depends on the clock, and a block
counts as done only once a note that is written atomically after its data says so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

import fsspec
import numcodecs
import numpy as np
import zarr

from diffusion_lab.making.metadata import StoreMetadata, missing_mask, store_attributes, tendency_steps
from diffusion_lab.stores.dates import period, show_date
from diffusion_lab.stores.reading import open_array
from diffusion_lab.stores.statistics import STATISTICS, StatisticsCollector
from diffusion_lab.stores.store import Store, open_store

_BLOCK_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20
_COMPRESSOR = numcodecs.Blosc("zstd", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
# Zarr writes a file under such a name and renames it once it is complete.
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.partial$")
_GROUP_FILE = re.compile(rf"/\.z(group|attrs)({_UNFINISHED.pattern})?")


class StoreWriter:
    """Writes a store one block of dates after another.

    ```python
    writer = StoreWriter("out.zarr", metadata)
    for block in writer.remaining():              # slices of the time axis, in order
        writer.write(block, fields[block])        # (time, variable, cell)
    store = writer.close()
    ```

    A writer for the same path and metadata resumes where an interrupted one stopped. `create_store` explains
    the arguments.

    Raises:
        ValueError: if dates, leads or statistics window are inconsistent.
        FileExistsError: if something else is at `path`.
    """

    def __init__(
        self, path: str | PathLike[str], metadata: StoreMetadata, chunk_times: int | None = None
    ) -> None:
        self.path = fspath(path).removeprefix("file://")
        self._partial = f"{self.path.rstrip('/')}.partial"
        self.metadata = metadata
        self._dates = np.asarray(metadata.dates).astype("datetime64[s]")
        self._missing = missing_mask(metadata, self._dates)
        leads = tendency_steps(metadata, self._dates)
        first, last = period(*metadata.statistics_window)
        in_window = (self._dates >= first) & (self._dates <= last)
        if not in_window.any():
            start, end = metadata.statistics_window
            raise ValueError(f"No date is in the statistics window {start} to {end}.")
        self._statistics = StatisticsCollector(len(metadata.variables), in_window, leads)
        self._shape = (len(self._dates), len(metadata.variables), 1, len(metadata.latitudes))
        chunk_times = chunk_times or max(1, _CHUNK_BYTES // (4 * math.prod(self._shape[1:])))
        self._chunks = (min(chunk_times, len(self._dates)), *self._shape[1:])
        attributes = store_attributes(metadata, self._dates, self._missing, in_window)
        attributes |= {"shape": list(self._shape), "chunks": list(self._chunks)}
        # The uuid is derived from the contents, so that a recipe resumes only its own store.
        text = json.dumps([attributes, _COMPRESSOR.get_config()], sort_keys=True).encode()
        places = np.asarray([metadata.latitudes, metadata.longitudes], np.float64).tobytes()
        identity = uuid.UUID(bytes=hashlib.sha256(text + places).digest()[:16])
        self._final_attributes = attributes | {"uuid": str(identity)}
        self._group, self._done = self._open()

    def _open(self) -> tuple[zarr.Group, int]:
        """The group and the number of its dates that are done."""
        files, finished = fsspec.core.url_to_fs(self.path)
        if files.exists(finished):
            self._check_own(self.path, _attributes_at(self.path))
            return zarr.open_group(self.path, mode="r", zarr_format=2), len(self._dates)
        files, root = fsspec.core.url_to_fs(self._partial)
        found = files.find(root)
        attributes = _attributes_at(self._partial)
        note = attributes.get("_build", attributes)
        # A store that was interrupted before its uuid was written is a group without attributes or arrays.
        nameless = not attributes and all(_GROUP_FILE.fullmatch(name.removeprefix(root)) for name in found)
        if not nameless:
            self._check_own(self._partial, note)
        for name in found:
            if _UNFINISHED.search(name):
                files.rm(name)
        if not attributes or ("_build" in attributes and "done" not in note):
            return self._begin(), 0
        group = zarr.open_group(self._partial, mode="r+", zarr_format=2, use_consolidated=False)
        return group, self._resume(group, note) if "_build" in attributes else len(self._dates)

    def _check_own(self, path: str, attributes: Mapping[str, Any]) -> None:
        if attributes.get("uuid") != self._final_attributes["uuid"]:
            why = "exists and was not made from this recipe and its sources"
            raise FileExistsError(f"{path!r} {why}. Remove it, or choose another name.")

    def _begin(self) -> zarr.Group:
        """Create the arrays; repeated until the note contains `done`."""
        metadata = self.metadata
        group = zarr.open_group(self._partial, mode="a", zarr_format=2)
        group.attrs.put({"_build": {"uuid": self._final_attributes["uuid"]}})
        group.create_array(
            "data",
            shape=self._shape,
            chunks=self._chunks,
            dtype="float32",
            fill_value=np.nan,
            compressors=_COMPRESSOR,
            # The chunks of missing dates are written too, so that an absent chunk is a lost chunk.
            config={"write_empty_chunks": True},
            overwrite=True,
            attributes={"_ARRAY_DIMENSIONS": ["time", "variable", "ensemble", "cell"]},
        )
        self._put(group, "dates", self._dates, "time")
        self._put(group, "latitudes", np.asarray(metadata.latitudes, np.float64), "cell")
        self._put(group, "longitudes", np.asarray(metadata.longitudes, np.float64), "cell")
        self._save(group, 0)
        return group

    def _resume(self, group: zarr.Group, note: Mapping[str, Any]) -> int:
        done = int(note["done"])
        state = np.frombuffer(base64.b64decode(note["statistics"]), np.float64)
        self._statistics.state[:] = state.reshape(self._statistics.state.shape)
        data = open_array(group, "data", self._partial)
        past = np.asarray(data[max(0, done - self._statistics.reach) : done], np.float32)
        self._statistics.remember(past[:, :, 0])
        return done

    def _save(self, group: zarr.Group, done: int) -> None:
        statistics = base64.b64encode(self._statistics.state.tobytes()).decode()
        note = {"uuid": self._final_attributes["uuid"], "done": done, "statistics": statistics}
        group.attrs.update({"_build": note})

    @staticmethod
    def _put(group: zarr.Group, name: str, values: np.ndarray, dimension: str) -> None:
        dimensions: dict[str, Any] = {"_ARRAY_DIMENSIONS": [dimension]}
        group.create_array(name, data=values, chunks=values.shape, overwrite=True, attributes=dimensions)

    def remaining(self) -> list[slice]:
        """The blocks still to be written, in order; each is a whole number of chunks, about 16 MiB."""
        size = self._chunks[0] * max(1, _BLOCK_BYTES // (4 * math.prod(self._chunks)))
        total = self._shape[0]
        return [slice(start, min(start + size, total)) for start in range(self._done, total, size)]

    def write(self, block: slice, values: np.ndarray) -> None:
        """Write one block and add it to the statistics.

        Args:
            block: the first of `remaining()`.
            values: (time, variable, cell) fields; those of missing dates are ignored.

        Raises:
            ValueError: if the block is out of order, the shape is wrong, or a value is not finite where it
                must be, naming variable and date.
        """
        if block not in self.remaining()[:1]:
            raise ValueError(f"Blocks are written in the order of remaining(); {block} is out of order.")
        expected = (block.stop - block.start, self._shape[1], self._shape[3])
        if values.shape != expected:
            raise ValueError(f"A block's fields have the shape {values.shape}, not {expected}.")
        with np.errstate(over="ignore"):
            values = np.array(values, np.float32)
        values[self._missing[block]] = np.nan
        self._check_values(block, values)
        with self._writing(f"the dates from {show_date(self._dates[block.start])} on"):
            open_array(self._group, "data", self._partial)[block] = values[:, :, np.newaxis]
            self._statistics.update(block.start, values)
            self._save(self._group, block.stop)
        self._done = block.stop

    def _check_values(self, block: slice, values: np.ndarray) -> None:
        for column, variable in enumerate(self.metadata.variables):
            bad = np.isinf(values[:, column]) if variable.allow_nan else ~np.isfinite(values[:, column])
            bad[self._missing[block]] = False
            if bad.any():
                time, cell = np.argwhere(bad)[0]
                value, date = values[time, column, cell], show_date(self._dates[block][time])
                lat, lon = self.metadata.latitudes[cell], self.metadata.longitudes[cell]
                place = f"cell {cell} (latitude {lat:g}, longitude {lon:g})"
                remedy = "Declare the date missing, or allow NaN for this variable."
                raise ValueError(f"{variable.name} is {value} at {date}, {place}. {remedy}")

    def close(self) -> Store:
        """Write statistics and attributes, give the store its name and open it.

        Raises:
            ValueError: if dates are still to be written.
        """
        if self._done < len(self._dates):
            raise ValueError(f"{self.path!r}: dates are still to be written from index {self._done} on.")
        if self._group.read_only:  # it was complete already
            return open_store(self.path)
        with self._writing("the statistics and the attributes"):
            if "_build" in self._group.attrs:
                statistics, tendencies = self._statistics.result()
                for name in STATISTICS:
                    self._put(self._group, name, getattr(statistics, name), "variable")
                    for lead, tendency in tendencies.items():
                        array = f"statistics_tendencies_{lead}_{name}"
                        self._put(self._group, array, getattr(tendency, name), "variable")
                self._group.attrs.put(self._final_attributes)
            zarr.consolidate_metadata(self._partial, zarr_format=2)
            files, partial = fsspec.core.url_to_fs(self._partial)
            files.mv(partial, fsspec.core.url_to_fs(self.path)[1], recursive=True)
        return open_store(self.path)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Say what could not be written, and what is kept, when the disk is full or unreachable."""
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}: {what} of {self.path!r} could not be written. What was "
                f"written before is kept in {self._partial!r}; the same command resumes from there",
            ) from error


def create_store(
    path: str | PathLike[str],
    metadata: StoreMetadata,
    read: Callable[[slice], np.ndarray],
    chunk_times: int | None = None,
) -> Store:
    """Create a store, or finish one that was interrupted, and open it.

    Args:
        path: local path or fsspec URL of the store.
        metadata: everything in the store but its fields.
        read: returns the fields (time, variable, cell) of a slice of the dates; called once for each block
            that is still to be written, in order.
        chunk_times: dates in a chunk; by default as many as fit in 1 MiB. A read decodes whole chunks.

    Raises:
        ValueError, FileExistsError: as `StoreWriter`.
    """
    writer = StoreWriter(path, metadata, chunk_times)
    for block in writer.remaining():
        writer.write(block, read(block))
    return writer.close()


def _attributes_at(path: str) -> dict[str, Any]:
    """The attributes of the group at a path, empty if there is none."""
    try:
        return dict(zarr.open_group(path, mode="r", zarr_format=2, use_consolidated=False).attrs)
    except (FileNotFoundError, NotADirectoryError):
        return {}
