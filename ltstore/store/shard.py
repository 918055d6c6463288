"""The bytes of a shard file: chunks with their checksums, then the index (pure).

    chunk 0 | crc32c | chunk 1 | crc32c | ... | index: per chunk (offset u64, n_bytes u64) | crc32c of the index

All little-endian. It is what Zarr v3 calls `sharding_indexed` with inner codecs `bytes`, `crc32c` and the
index at the end; a chunk that holds no rows is absent: both its index words are 2**64 - 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ltstore.errors import ChecksumMismatchError, StoreFormatError
from ltstore.types import ByteArray

CHECKSUM_BYTES = 4
INDEX_ENTRY_BYTES = 16
ABSENT = 2**64 - 1


def crc32c(data: ByteArray) -> int:
    """Return the CRC-32C (Castagnoli) of a contiguous (n,) uint8 array."""
    return int(google_crc32c.value(data))


def as_bytes(array: NDArray[Any]) -> ByteArray:
    """Return the memory of a C-contiguous array as (n,) uint8, without copying."""
    return array.reshape(-1).view(np.uint8)


def index_bytes(n_chunks: int) -> int:
    """Return the size of the index of a shard with `n_chunks` entries, its checksum included."""
    return n_chunks * INDEX_ENTRY_BYTES + CHECKSUM_BYTES


def encode_shard(rows: NDArray[Any], chunk_rows: int, n_chunks: int) -> Iterator[ByteArray]:
    """Yield the bytes of a shard file, piece by piece, without copying whole chunks.

    Parameters
    ----------
    rows : (n, ...) array, C-contiguous, little-endian
        At most ``n_chunks * chunk_rows`` rows; the last chunk is padded with zeros.
    chunk_rows, n_chunks : int
        Rows in a chunk, entries in the index.
    """
    entries = np.full((n_chunks, 2), ABSENT, "<u8")
    offset = 0
    for chunk, start in enumerate(range(0, len(rows), chunk_rows)):
        block = rows[start : start + chunk_rows]
        if len(block) < chunk_rows:
            padded = np.zeros((chunk_rows, *rows.shape[1:]), rows.dtype)
            padded[: len(block)] = block
            block = padded
        data = as_bytes(block)
        yield data
        yield _checksum(data)
        entries[chunk] = offset, len(data) + CHECKSUM_BYTES
        offset += len(data) + CHECKSUM_BYTES
    data = as_bytes(entries)
    yield data
    yield _checksum(data)


def index_of(n_present: int, n_chunks: int, chunk_bytes: int) -> ByteArray:
    """Return the index, with its checksum, of a shard whose first chunks are there and lie end to end."""
    stored = chunk_bytes + CHECKSUM_BYTES
    entries = np.full((n_chunks, 2), ABSENT, "<u8")
    entries[:n_present, 0] = np.arange(n_present, dtype=np.uint64) * np.uint64(stored)
    entries[:n_present, 1] = stored
    data = as_bytes(entries)
    return np.concatenate([data, _checksum(data)])


def _checksum(data: ByteArray) -> ByteArray:
    return as_bytes(np.array([crc32c(data)], "<u4"))


def checksum_holds(data: ByteArray) -> bool:
    """Whether the last four bytes are the checksum of those before."""
    return crc32c(data[:-CHECKSUM_BYTES]) == int.from_bytes(data[-CHECKSUM_BYTES:].tobytes(), "little")


@dataclass(frozen=True)
class ShardIndex:
    """Where the chunks of one shard file lie: (n_chunks, 2) uint64 of (offset, n_bytes), validated."""

    entries: NDArray[np.uint64]

    def uniform_stride(self, n_present: int, chunk_bytes: int) -> int | None:
        """Return the offset of chunk 0 where chunks lie end to end, raw with a checksum each; else None."""
        entries = self.entries[:n_present]
        stored = chunk_bytes + CHECKSUM_BYTES
        if (entries[:, 1] != stored).any():
            return None
        first = int(entries[0, 0]) if n_present else 0
        expected = first + np.arange(n_present, dtype=np.uint64) * np.uint64(stored)
        return first if bool((entries[:, 0] == expected).all()) else None


def read_index(data: ByteArray, n_chunks: int, where: str, n_bytes: int | None = None) -> ShardIndex:
    """Return the validated index of a shard file.

    Parameters
    ----------
    data : (n,) uint8
        The file, mapped or in memory, or only its end.
    n_chunks : int
        Entries expected.
    where : str
        The file, for messages.
    n_bytes : int, optional
        Size of the file, where `data` is only its end.

    Raises
    ------
    StoreFormatError
        The file is shorter than its index, or a chunk lies outside the file.
    ChecksumMismatchError
        The index does not match its checksum.
    """
    size = index_bytes(n_chunks)
    if len(data) < size:
        raise StoreFormatError(
            f"{where} has {len(data)} bytes, fewer than the {size} of its index: it was cut short; run verify"
        )
    raw = data[len(data) - size :]
    if not checksum_holds(raw):
        raise ChecksumMismatchError(f"the index of {where} does not match its checksum: run verify")
    entries = raw[:-CHECKSUM_BYTES].copy().view("<u8").reshape(n_chunks, 2).astype(np.uint64)
    present = entries[(entries != ABSENT).any(axis=1)]  # absent are those of which both words say so
    room = (len(data) if n_bytes is None else n_bytes) - size
    outside = (present[:, 0] > room) | (present[:, 1] > room)
    outside |= present[:, 1] > np.uint64(room) - np.minimum(present[:, 0], np.uint64(room))
    if outside.any():
        offset, count = (int(value) for value in present[int(np.argmax(outside))])
        raise StoreFormatError(
            f"the index of {where} points to bytes {offset}..{offset + count} of {room}: the file is damaged"
        )
    return ShardIndex(entries)


def bad_chunks(data: ByteArray, index: ShardIndex) -> list[int]:
    """Return the chunks of a shard file that do not match their checksum; absent chunks are not looked at."""
    bad = []
    for chunk, (offset, count) in enumerate(index.entries.tolist()):
        if offset != ABSENT and (count < CHECKSUM_BYTES or not checksum_holds(data[offset : offset + count])):
            bad.append(chunk)
    return bad
