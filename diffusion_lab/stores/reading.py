"""Reading zarr data that others wrote: it must not run code, and what is damaged is named."""

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
    """Name what is read when a library fails on damaged data, whatever it raises.

    Args:
        what: what is read, such as `the array 'data' of the store 'a.zarr'`.
        remedy: what to do about it, a sentence.

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
    """Open a zarr group for reading; no chunk is read.

    Args:
        url: a local path or a URL that fsspec understands.
        storage_options: options of the URL's file system.

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


def has_array(group: zarr.Group, name: str, path: str) -> bool:
    """Whether the group at `path` has an array of this name.

    Raises:
        ValueError: if the array's metadata are damaged.
    """
    with reading(f"the array {name!r} of the store {path!r}"):
        return name in group


def open_array(group: zarr.Group, name: str, path: str) -> zarr.Array:
    """An array of a group, after checking that to read it runs no code.

    Args:
        group: the group.
        name: name of the array.
        path: where the group is, for the messages.

    Raises:
        ValueError: if it is damaged, is a group, or uses a codec that is not one of `ALLOWED_CODECS`.
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
            "when it is read. Ask for a copy that is compressed otherwise, for example with Blosc or Zstd."
        )
    return array


def check_group(path: str, storage_options: Mapping[str, Any] | None = None) -> None:
    """Check all arrays of a group as `open_array` does, before another library reads them.

    Raises:
        FileNotFoundError, ValueError: as `open_group` and `open_array`.
    """
    group = open_group(path, storage_options)
    with reading(f"the metadata of the store {path!r}"):
        names = sorted(group.array_keys())
    for name in names:
        open_array(group, name, path)


def _codec_names(metadata: Any) -> Iterator[str]:
    """Names of the codecs in an array's metadata: zarr v2's filters and compressor, v3's nested codecs."""
    if isinstance(metadata, Mapping):
        for key in ("filters", "compressor", "codecs", "index_codecs", "configuration"):
            part = metadata.get(key)
            for codec in part if isinstance(part, (list, tuple)) else [part]:
                if not isinstance(codec, Mapping):
                    continue
                if key != "configuration":
                    yield str(codec.get("id", codec.get("name"))).removeprefix("numcodecs.")
                yield from _codec_names(codec)
