"""Make the shipped example: two years of the training store, compressed as far as zarr allows.

    diffusion-lab data create speedy example_train.zarr
    python -m diffusion_lab.making.example example_train.zarr

The statistics are still those of the training years.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import zarr
from numcodecs import Blosc, Delta, FixedScaleOffset

from diffusion_lab.stores.climatology import fit_climatology
from diffusion_lab.stores.dates import period
from diffusion_lab.stores.reading import open_array, open_group
from diffusion_lab.stores.store import Store, open_store

ASSETS = Path(__file__).parent.parent / "assets"
LARGEST_CHUNK = 34  # dates


def excerpt(store: Store, path: str | PathLike[str], start: str, end: str) -> Store:
    """Copy the dates from `start` to `end`, and the statistics, to a new, strongly compressed zarr v2 store.

    The fields are multiples of a power of two (the attribute `rounded_to_multiples_of`), so they become
    integers when scaled. Second differences between neighbouring cells are small integers, whose bits are
    sorted by weight and packed by zstd. This is exact, and a third smaller than zstd on the floats.

    Args:
        store: a store whose fields are rounded in this way.
        path: path of the new store; whatever is there is replaced.
        start: first date.
        end: last date; `2025` includes all of that year.

    Raises:
        ValueError: no date of the store is in the period, or a copied value is not the original.
    """
    first, last = period(start, end)
    chosen = np.flatnonzero((store.dates >= first) & (store.dates <= last))
    if len(chosen) == 0:
        raise ValueError(f"{store.path!r} has no date from {start} to {end}.")
    source = open_group(store.path)
    scale = 1 / min(store.attributes["rounded_to_multiples_of"].values())
    partial = f"{fspath(path)}.partial"
    target = zarr.open_group(partial, mode="w", zarr_format=2)
    shape = (len(chosen), *open_array(source, "data", store.path).shape[1:])
    # All chunks are full, as the NaN that pads a last chunk would not become an integer.
    size = next(count for count in range(LARGEST_CHUNK, 0, -1) if len(chosen) % count == 0)
    chunks = (size, *shape[1:])
    data = target.create_array(
        "data",
        shape=shape,
        chunks=chunks,
        dtype="float32",
        fill_value=np.nan,
        filters=[FixedScaleOffset(0, scale, "<f4", "<i4"), Delta("<i4"), Delta("<i4")],
        compressors=Blosc("zstd", clevel=9, shuffle=Blosc.BITSHUFFLE, blocksize=4 * int(np.prod(chunks))),
    )
    data.attrs.put(dict(open_array(source, "data", store.path).attrs))
    for begin in range(0, len(chosen), size):
        block = slice(begin, begin + size)
        fields = store.read(chosen[block])
        data[block] = fields
        if not np.array_equal(data[block], fields):
            raise ValueError(
                f"{store.path!r} holds values that are not multiples of {1 / scale}, or are too large."
            )
    for name, array in source.arrays():
        if name != "data":
            values = np.asarray(array[:])[chosen if name == "dates" else slice(None)]
            target.create_array(name, data=values, chunks=values.shape, attributes=dict(array.attrs))
    dates = [str(store.dates[index]) for index in (chosen[0], chosen[-1])]
    target.attrs.put(
        store.attributes
        | {"start_date": dates[0], "end_date": dates[1], "shape": list(shape), "chunks": list(chunks)}
        | {"uuid": str(uuid.uuid5(uuid.UUID(store.attributes["uuid"]), " ".join(dates)))}
    )
    zarr.consolidate_metadata(partial, zarr_format=2)
    shutil.rmtree(path, ignore_errors=True)
    os.rename(partial, path)
    return open_store(path)


def main(training_store: str) -> None:
    """Write the assets `example.zarr` (2024, 2025) and `example_climatology.npz` (fitted up to 2024)."""
    store = open_store(training_store)
    excerpt(store, ASSETS / "example.zarr", "2024", "2025")
    fit_climatology(store, str(store.dates[0]), "2024").save(ASSETS / "example_climatology.npz")


if __name__ == "__main__":
    main(*sys.argv[1:])
