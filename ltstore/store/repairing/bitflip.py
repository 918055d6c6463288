"""Undo a single flipped bit, the commonest damage of all: a checksum or digest says which one it was (pure).

What is found is a candidate: whoever asks compares the digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ltstore.store.shard import CHECKSUM_BYTES, crc32c
from ltstore.types import ByteArray

MOST_CHUNK_BYTES = 16 << 20
"""Of a chunk that is searched: two seconds for a megabyte."""
MOST_DIGESTED_BYTES = 1 << 16
MOST_JSON_BYTES = 1 << 13
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected


def mend_chunk(data: ByteArray) -> ByteArray | None:
    """Return a chunk with its checksum in which one bit is flipped back; None where no single bit explains it.

    Notes
    -----
    A CRC is linear: what a flipped bit changes in it depends on the bit's distance from the end alone, and is the
    register 1 after so many steps. Memory: one copy.
    """
    if not CHECKSUM_BYTES < len(data) <= MOST_CHUNK_BYTES:
        return None
    n = len(data) - CHECKSUM_BYTES
    wanted = crc32c(np.ascontiguousarray(data[:n])) ^ int.from_bytes(data[n:].tobytes(), "little")
    mended = data.copy()
    if wanted.bit_count() == 1:  # in the checksum itself
        bit = wanted.bit_length() - 1
        mended[n + bit // 8] ^= 1 << bit % 8
        return mended
    register = 1
    for step in range(1, 8 * n + 1):
        register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
        if register == wanted:
            n_after = -(-step // 8)  # bytes from the flipped one to the end, itself included
            mended[n - n_after] ^= 1 << 8 * n_after - step
            return mended
    return None


def mend_digested(data: bytes, sha256: str) -> bytes | None:
    """Return data of that SHA-256, one bit flipped back; None where there is none, or the data are too long."""
    if len(data) > MOST_DIGESTED_BYTES:
        return None
    before = hashlib.sha256()
    for at, byte in enumerate(data):
        rest = data[at + 1 :]
        for bit in range(8):
            state = before.copy()
            state.update(bytes([byte ^ 1 << bit]))
            state.update(rest)
            if state.hexdigest() == sha256:
                return data[:at] + bytes([byte ^ 1 << bit]) + rest
        before.update(data[at : at + 1])
    return None


def mend_json(data: bytes, holds: Callable[[dict[str, Any]], bool]) -> bytes | None:
    """Return a JSON object that `holds`, one bit flipped back; None where there is none, or it is too long."""
    if len(data) > MOST_JSON_BYTES:
        return None
    for candidate in _flipped(data):
        try:
            document = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and holds(document):
            return candidate
    return None


def _flipped(data: bytes) -> Iterator[bytes]:
    changed = bytearray(data)
    for at in range(len(data)):
        for bit in range(8):
            changed[at] ^= 1 << bit
            yield bytes(changed)
            changed[at] ^= 1 << bit
