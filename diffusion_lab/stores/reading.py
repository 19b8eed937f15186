"""Reading zarr data from others: it must not run code, and errors name what is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import zarr

# Codecs that only transform numbers, text and bytes. Others, such as numcodecs' `pickle`, can run code.
# fmt: off
ALLOWED_CODECS = frozenset({
    "adler32", "astype", "base64", "bitround", "blosc", "bytes", "bz2", "categorize", "crc32", "crc32c",
    "delta", "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "json2", "lz4", "lzma", "packbits",
    "pcodec", "quantize", "sharding_indexed", "shuffle", "transpose", "vlen-array", "vlen-bytes",
    "vlen-utf8", "zfpy", "zlib", "zstd",
})
# fmt: on


@contextmanager
def reading(what: str, remedy: str = "Make it again, or copy it again.") -> Iterator[None]:
    """Turn whatever a library raises on damaged data into an error that says `what` was read.

    Raises:
        ValueError: in place of any error but a missing file, a missing package and a lack of memory.
    """
    try:
        yield
    except (FileNotFoundError, ImportError, MemoryError):
        raise
    except Exception as error:
        lines = str(error.args[0] if isinstance(error, KeyError) and error.args else error).splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise ValueError(f"Cannot read {what}; it seems to be damaged ({reason}). {remedy}") from error


def open_group(url: str, storage_options: Mapping[str, Any] | None = None) -> zarr.Group:
    """Open a zarr group at a local path or an fsspec URL, for reading; no chunk is read.

    Raises:
        FileNotFoundError: if there is no zarr group.
        ValueError: if its metadata are damaged.
    """
    with reading(f"the metadata of the store {url!r}"):
        try:
            options = dict(storage_options) if storage_options else None
            return zarr.open_group(url, mode="r", storage_options=options)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"No zarr store at {url!r}.") from error


def open_array(group: zarr.Group, name: str, path: str) -> zarr.Array:
    """Open an array of the group at `path`, after checking that reading it runs no code.

    Raises:
        ValueError: if it is damaged, is a group, or uses a codec that is not in `ALLOWED_CODECS`.
    """
    with reading(f"the array {name!r} of the store {path!r}"):
        array = group[name]
        if not isinstance(array, zarr.Array):
            raise TypeError(f"{name} is a group, not an array")
        codecs = set(_codec_names(array.metadata.to_dict()))
    unsafe = sorted(codecs - ALLOWED_CODECS)
    if unsafe:
        raise ValueError(
            f"The array {name!r} of the store {path!r} uses the codec {unsafe[0]!r}, which may run code "
            "when it is read. Ask for a copy with another compression, for example Blosc or Zstd."
        )
    return array


def check_group(path: str, storage_options: Mapping[str, Any] | None = None) -> None:
    """Check all arrays of a group before another library reads them.

    Raises:
        FileNotFoundError, ValueError: as `open_group` and `open_array`.
    """
    group = open_group(path, storage_options)
    with reading(f"the metadata of the store {path!r}"):
        names = sorted(group.array_keys())
    for name in names:
        open_array(group, name, path)


def _codec_names(metadata: Any) -> Iterator[str]:
    """Codecs in an array's metadata: filters and compressor of zarr v2, nested codecs of v3."""
    if isinstance(metadata, Mapping):
        for key in ("filters", "compressor", "codecs", "index_codecs", "configuration"):
            part = metadata.get(key)
            for codec in part if isinstance(part, (list, tuple)) else [part]:
                if not isinstance(codec, Mapping):
                    continue
                if key != "configuration":
                    yield str(codec.get("id", codec.get("name"))).removeprefix("numcodecs.")
                yield from _codec_names(codec)
