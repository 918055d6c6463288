"""The one adapter to zarr-python: metadata of new arrays, and reading of arrays of any other layout."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray

from ltstore.errors import ChecksumMismatchError, StoreFormatError
from ltstore.store.format import ATTRIBUTE, GROUP_FILE, seal


def array_document(
    shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...], shards: tuple[int, ...] | None
) -> dict[str, Any]:
    """Return the zarr.json that zarr-python makes for an uncompressed, checksummed array, sealed."""
    return seal(json.loads(_metadata(shape, dtype, chunks, shards)))


@lru_cache(maxsize=64)
def _metadata(
    shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...], shards: tuple[int, ...] | None
) -> bytes:
    memory: dict[str, Any] = {}
    zarr.create_array(
        zarr.storage.MemoryStore(memory),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        serializer=zarr.codecs.BytesCodec(endian=None if np.dtype(dtype).itemsize == 1 else "little"),
        filters=None,
        compressors=(zarr.codecs.Crc32cCodec(),),
        fill_value=0,
        zarr_format=3,
        attributes={ATTRIBUTE: {}},
        config={"write_empty_chunks": True},
    )
    document: bytes = memory[GROUP_FILE].to_bytes()
    return document


def read_array(path: Path, selection: slice | NDArray[np.int64]) -> NDArray[Any]:
    """Return rows of the array at `path` through zarr-python's codec pipeline.

    Raises
    ------
    StoreFormatError
        It is not an array that zarr-python can read; ChecksumMismatchError where a checksum fails.
    """
    try:
        array = zarr.open_array(path, mode="r", zarr_format=3)
        found = array[selection] if isinstance(selection, slice) else array.oindex[selection]
    except (TimeoutError, ValueError, TypeError, KeyError, RuntimeError, FileNotFoundError) as err:
        kind = ChecksumMismatchError if "checksum" in str(err).lower() else StoreFormatError
        raise kind(f"cannot read the array {path}: {err}") from err
    return np.asarray(found)
