"""A single flipped bit is found wherever it is, and nothing is made of other damage."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from ltstore.store.format import seal, seal_holds
from ltstore.store.repairing.bitflip import mend_chunk, mend_digested, mend_json
from ltstore.store.shard import crc32c


@pytest.mark.parametrize("n_bytes", [1, 2, 7, 64, 1000])
def test_every_bit_of_a_chunk(n_bytes: int) -> None:
    rng = np.random.default_rng(n_bytes)
    chunk = rng.integers(0, 256, n_bytes, np.uint8)
    stored = np.concatenate([chunk, np.frombuffer(crc32c(chunk).to_bytes(4, "little"), np.uint8)])
    bits = range(8 * len(stored)) if n_bytes < 100 else rng.integers(0, 8 * len(stored), 40).tolist()
    for bit in bits:
        damaged = stored.copy()
        damaged[bit // 8] ^= 1 << bit % 8
        mended = mend_chunk(damaged)
        assert mended is not None
        np.testing.assert_array_equal(mended, stored)


def test_more_than_one_bit_of_a_chunk() -> None:
    chunk = np.arange(100, dtype=np.uint8)
    stored = np.concatenate([chunk, np.frombuffer(crc32c(chunk).to_bytes(4, "little"), np.uint8)])
    stored[3] ^= 0b101
    assert mend_chunk(stored) is None
    assert mend_chunk(stored[:4]) is None


def test_digested_bytes_and_sealed_json() -> None:
    data = bytes(range(200))
    damaged = data[:77] + bytes([data[77] ^ 16]) + data[78:]
    assert mend_digested(damaged, hashlib.sha256(data).hexdigest()) == data
    assert mend_digested(damaged[:-1], hashlib.sha256(data).hexdigest()) is None
    assert mend_digested(bytes(1 << 20), "0" * 64) is None
    text = json.dumps(seal({"n_rows": 12, "name": "été"}), ensure_ascii=False).encode()
    for at in range(len(text)):
        broken = text[:at] + bytes([text[at] ^ 2]) + text[at + 1 :]
        mended = mend_json(broken, seal_holds)
        assert mended is not None
        assert json.loads(mended) == json.loads(text)
    assert mend_json(text[:-3], seal_holds) is None
