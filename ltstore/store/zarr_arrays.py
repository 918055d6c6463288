"""The one adapter to zarr-python: metadata of new arrays, and reading of arrays of any other layout."""

from __future__ import annotations

import asyncio
import json
import math
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype

from ltstore.errors import ChecksumMismatchError, LtstoreError, StoreFormatError
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


class GuardedStore(zarr.storage.LocalStore):
    """A directory read as Zarr, of which nothing is believed: bounded codecs, no pipes, strict JSON, no hints."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Return the bytes of a file, of a metadata document after `ltstore.store.codecs` has seen it."""
        buffer = prototype or default_buffer_prototype()
        name = key.rpartition("/")[2]
        if name in (".zattrs", ".zmetadata"):  # attributes are not asked for; arrays speak for themselves
            return None
        if name in (GROUP_FILE, ".zarray", ".zgroup"):
            document = await asyncio.to_thread(self._document, self.root / key)
            return None if document is None else buffer.buffer.from_bytes(json.dumps(document).encode())
        if not await asyncio.to_thread(_is_regular, self.root / key):
            return None
        return await super().get(key, buffer, byte_range)

    def _document(self, path: Path) -> dict[str, Any] | None:
        try:
            document = read_json(path)
        except FileNotFoundError:
            return None
        try:
            if path.name == ".zgroup":
                return document
            return bounded_v2(document) if path.name == ".zarray" else bounded_v3(document)
        except ValueError as err:
            raise StoreFormatError(f"{path} cannot be read: {err}") from err


class _NoFill(GuardedStore):
    """One whose arrays fill missing chunks with what no array of a store may hold."""

    def _document(self, path: Path) -> dict[str, Any] | None:
        document = super()._document(path)
        if document and document.get("node_type") == "array":
            document["fill_value"] = _MISSING.get(document.get("data_type"), 0)
        return document


# No embedding is NaN, no label or row id so small, no status so large.
_MISSING: dict[Any, Any] = {"float16": "NaN", "float32": "NaN", "int64": -(1 << 63), "uint8": UNWRITTEN}


def _is_regular(path: Path) -> bool:
    """Whether there is a file; StoreFormatError where there is something else."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as err:
        raise StoreFormatError(f"cannot read {path}: {err.strerror or err}") from err
    if not stat.S_ISREG(mode):
        raise StoreFormatError(f"{path} must be a regular file, found a directory, pipe or device")
    return True


def read_array(path: Path, selection: slice | NDArray[np.int64]) -> NDArray[Any]:
    """Return rows of the array at `path` through zarr-python's codec pipeline.

    Raises
    ------
    StoreFormatError
        It is not an array that zarr-python can read, a chunk is missing, or it would take far more memory than it
        has bytes; ChecksumMismatchError where a checksum fails.
    """
    try:
        array = zarr.open_array(_NoFill(path, read_only=True), mode="r", zarr_format=3)
        n_rows = (
            len(range(*selection.indices(array.shape[0]))) if isinstance(selection, slice) else len(selection)
        )
        check_room(math.prod((n_rows, *array.shape[1:])) * array.dtype.itemsize, path, "rows")
        found = np.asarray(array[selection] if isinstance(selection, slice) else array.oindex[selection])
    except LtstoreError:
        raise
    except Exception as err:
        kind = ChecksumMismatchError if "checksum" in str(err).lower() else StoreFormatError
        raise kind(f"cannot read the array {path}: {shown_line(err)}") from err
    fill = array.fill_value
    if (np.isnan(found) if found.dtype.kind == "f" else found == fill).any():
        raise StoreFormatError(
            f"a chunk of {path} is missing, or holds {fill}: a store's arrays have all of their chunks, those of "
            "zeros too (write_empty_chunks)"
        )
    return found
