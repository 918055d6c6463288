"""The one adapter to zarr-python: metadata of new arrays, and reading of arrays of any other layout."""

from __future__ import annotations

import asyncio
import json
import math
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
import zarr.abc.store
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype

from ltstore.errors import ChecksumMismatchError, LtstoreError, StoreFormatError
from ltstore.storage import Location
from ltstore.store.bounds import check_room
from ltstore.store.codecs import bounded_v2, bounded_v3
from ltstore.store.format import ATTRIBUTE, GROUP_FILE, UNWRITTEN, read_json, seal, shown_line

DIMENSIONS = ("row", "feature")


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
        dimension_names=DIMENSIONS[: len(shape)],  # xarray opens no array without
        config={"write_empty_chunks": True},
    )
    document: bytes = memory[GROUP_FILE].to_bytes()
    return document


class GuardedStore(zarr.abc.store.Store):
    """A place read as Zarr, of which nothing is believed: bounded codecs, no pipes, strict JSON, no hints."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, location: Location) -> None:
        super().__init__(read_only=True)
        self._location = location

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other._location) == str(self._location)

    def __str__(self) -> str:
        return str(self._location)

    def _at(self, key: str) -> Location:
        location = self._location
        for name in key.split("/") if key else ():
            location = location / name
        return location

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Return the bytes of a file, of a metadata document after `ltstore.store.codecs` has seen it."""
        buffer = (prototype or default_buffer_prototype()).buffer
        name = key.rpartition("/")[2]
        if name in (".zattrs", ".zmetadata"):  # attributes are not asked for; arrays speak for themselves
            return None
        location = self._at(key)
        if name in (GROUP_FILE, ".zarray", ".zgroup"):
            document = await asyncio.to_thread(self._document, location)
            return None if document is None else buffer.from_bytes(json.dumps(document).encode())
        try:
            data = await asyncio.to_thread(location.view)
        except FileNotFoundError:
            return None
        return buffer.from_bytes(data[_span(byte_range, len(data))].tobytes())

    def _document(self, location: Location) -> dict[str, Any] | None:
        try:
            document = read_json(location)
        except FileNotFoundError:
            return None
        try:
            if location.name == ".zgroup":
                return document
            return bounded_v2(document) if location.name == ".zarray" else bounded_v3(document)
        except ValueError as err:
            raise StoreFormatError(f"{location} cannot be read: {err}") from err

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
        """Return parts of files, see `get`."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return await asyncio.to_thread(self._at(key).exists)

    async def set(self, key: str, value: Any) -> None:
        """Refuse: nothing is written this way."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Refuse: nothing is removed this way."""
        raise NotImplementedError

    def list(self) -> Any:
        """Refuse: only directories are listed."""
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> Any:
        """Refuse: only directories are listed."""
        raise NotImplementedError

    async def list_dir(self, prefix: str) -> Any:
        """Yield the names directly below a prefix."""
        for name in await asyncio.to_thread(self._at(prefix.rstrip("/")).child_names):
            yield name


def _span(byte_range: Any, n_bytes: int) -> slice:
    if isinstance(byte_range, zarr.abc.store.RangeByteRequest):
        return slice(byte_range.start, byte_range.end)
    if isinstance(byte_range, zarr.abc.store.OffsetByteRequest):
        return slice(byte_range.offset, None)
    if isinstance(byte_range, zarr.abc.store.SuffixByteRequest):
        return slice(max(n_bytes - byte_range.suffix, 0), None)
    return slice(None)


class _NoFill(GuardedStore):
    """One whose arrays fill missing chunks with what no array of a store may hold."""

    def _document(self, location: Location) -> dict[str, Any] | None:
        document = super()._document(location)
        if document and document.get("node_type") == "array":
            document["fill_value"] = _MISSING.get(document.get("data_type"), 0)
        return document


# No embedding is NaN, no label or row id so small, no status so large.
_MISSING: dict[Any, Any] = {"float16": "NaN", "float32": "NaN", "int64": -(1 << 63), "uint8": UNWRITTEN}


def read_array(location: Location, selection: slice | NDArray[np.int64]) -> NDArray[Any]:
    """Return rows of the array at `location` through zarr-python's codec pipeline.

    Raises
    ------
    StoreFormatError
        It is not an array that zarr-python can read, a chunk is missing, or it would take far more memory than it
        has bytes; ChecksumMismatchError where a checksum fails.
    """
    try:
        array = zarr.open_array(_NoFill(location), mode="r", zarr_format=3)
        n_rows = (
            len(range(*selection.indices(array.shape[0]))) if isinstance(selection, slice) else len(selection)
        )
        check_room(math.prod((n_rows, *array.shape[1:])) * array.dtype.itemsize, location, "rows")
        found = np.asarray(array[selection] if isinstance(selection, slice) else array.oindex[selection])
    except LtstoreError:
        raise
    except Exception as err:
        kind = ChecksumMismatchError if "checksum" in str(err).lower() else StoreFormatError
        raise kind(f"cannot read the array {location}: {shown_line(err)}") from err
    fill = array.fill_value
    if (np.isnan(found) if found.dtype.kind == "f" else found == fill).any():
        raise StoreFormatError(
            f"a chunk of {location} is missing, or holds {fill}: a store's arrays have all of their chunks, those of "
            "zeros too (write_empty_chunks)"
        )
    return found
