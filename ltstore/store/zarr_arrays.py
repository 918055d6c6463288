"""The one adapter to zarr-python: metadata of new arrays, and reading of arrays of any other layout."""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
import zarr.abc.store
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray

from ltstore.errors import ChecksumMismatchError, StoreFormatError
from ltstore.storage import FileLocation, Location
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


def read_array(location: Location, selection: slice | NDArray[np.int64]) -> NDArray[Any]:
    """Return rows of an array through zarr-python's codec pipeline.

    Raises
    ------
    StoreFormatError
        It is not an array that zarr-python can read; ChecksumMismatchError where a checksum fails.
    """
    try:
        store: Any = location.path if isinstance(location, FileLocation) else _Objects(location)
        array = zarr.open_array(store, mode="r", zarr_format=3)
        found = array[selection] if isinstance(selection, slice) else array.oindex[selection]
    except (TimeoutError, ValueError, TypeError, KeyError, RuntimeError, FileNotFoundError) as err:
        kind = ChecksumMismatchError if "checksum" in str(err).lower() else StoreFormatError
        raise kind(f"cannot read the array {location}: {err}") from err
    return np.asarray(found)


class _Objects(zarr.abc.store.Store):
    """What lies below a location, as a read-only store of zarr-python."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, location: Location) -> None:
        super().__init__(read_only=True)
        self._location = location

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Objects) and str(other._location) == str(self._location)

    def _at(self, key: str) -> Location:
        location = self._location
        for name in key.split("/"):
            location = location / name
        return location

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        try:
            data = await asyncio.to_thread(self._at(key).view)
        except FileNotFoundError:
            return None
        return prototype.buffer.from_bytes(data[_span(byte_range, len(data))].tobytes())

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._at(key).exists)

    async def set(self, key: str, value: Any) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    def list(self) -> Any:
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> Any:
        raise NotImplementedError

    async def list_dir(self, prefix: str) -> Any:
        for name in await asyncio.to_thread(self._at(prefix).child_names):
            yield name


def _span(byte_range: Any, n_bytes: int) -> slice:
    if isinstance(byte_range, zarr.abc.store.RangeByteRequest):
        return slice(byte_range.start, byte_range.end)
    if isinstance(byte_range, zarr.abc.store.OffsetByteRequest):
        return slice(byte_range.offset, None)
    if isinstance(byte_range, zarr.abc.store.SuffixByteRequest):
        return slice(max(n_bytes - byte_range.suffix, 0), None)
    return slice(None)
