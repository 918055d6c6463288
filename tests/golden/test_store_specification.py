"""docs/format.md is complete: a reader of a few lines, made from it alone, reads the golden store."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

GOLDEN = Path(__file__).parent / "store-v1"


def canonical(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_a_row_is_found_from_the_page_alone() -> None:
    split = GOLDEN / "train"
    attribute = json.loads((split / "zarr.json").read_text())["attributes"]["ltstore"]
    n_features = json.loads((GOLDEN / "zarr.json").read_text())["attributes"]["ltstore"]["encoder"][
        "n_features"
    ]
    per_shard, per_chunk = attribute["rows_per_shard"], attribute["chunk_rows"]
    row_bytes = np.dtype(attribute["dtype"]).itemsize * n_features
    for row in range(attribute["n_rows"]):
        shard, within = divmod(row, per_shard)
        data = (split / "embeddings" / "c" / str(shard) / "0").read_bytes()
        n_chunks = per_shard // per_chunk
        index = data[-(16 * n_chunks + 4) : -4]
        assert google_crc32c.value(index) == struct.unpack("<I", data[-4:])[0]
        offset, size = struct.unpack_from("<QQ", index, 16 * (within // per_chunk))
        assert size == per_chunk * row_bytes + 4
        chunk = data[offset : offset + size]
        assert google_crc32c.value(chunk[:-4]) == struct.unpack("<I", chunk[-4:])[0]
        found = np.frombuffer(chunk, attribute["dtype"], n_features, (within % per_chunk) * row_bytes)
        failed = row in (6, 9)
        np.testing.assert_array_equal(found, 0 if failed else (np.arange(5) + 5 * row - 30) / 8)


def test_digests_and_seals_are_those_of_the_page() -> None:
    split = GOLDEN / "train"
    items = []
    for path in sorted((split / "commits").iterdir()):
        commit = json.loads(path.read_text())
        seal = commit.pop("sha256")
        assert seal == canonical(commit)
        items.append([commit["files"][name]["sha256"] for name in ("embeddings", "labels", "status", "rows")])
    document = json.loads((split / "zarr.json").read_text())
    assert document["attributes"]["ltstore"]["digest"] == canonical(items)
    for path in GOLDEN.rglob("zarr.json"):
        document = json.loads(path.read_text())
        seal = document["attributes"]["ltstore"].pop("sha256")
        assert seal == canonical(document), path


def test_the_checksum_is_castagnolis() -> None:
    assert google_crc32c.value(b"123456789") == 0xE3069283
