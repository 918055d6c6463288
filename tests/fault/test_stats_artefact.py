"""Moments on disk: what is written is read back, and anything else is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ChecksumMismatchError, DataError, StoreFormatError, StoreNotFoundError
from ltstore.provenance import record
from ltstore.rows import ArrayRows
from ltstore.stats import class_moments, load_moments, save_moments

ROWS = ArrayRows(np.random.default_rng(0).normal(size=(12, 4)), [0, 1, 2] * 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = record("moments", settings={"rank": 2}, made_from={"rows": ROWS.digest})
    save_moments(class_moments(ROWS, rank=2), tmp_path / "m.safetensors", made)
    return tmp_path / "m.safetensors"


def test_round_trip(path: Path) -> None:
    found, expected = load_moments(path, rows_digest=ROWS.digest), class_moments(ROWS, rank=2)
    for name in ("counts", "means", "pooled", "basis", "scatter", "residual"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert [p.name for p in path.parent.iterdir() if p.suffix == ".tmp"] == []


def test_stale_missing_flipped_and_foreign(path: Path) -> None:
    with pytest.raises(DataError, match="compute them again"):
        load_moments(path, rows_digest="sha256:other")
    with pytest.raises(StoreNotFoundError, match="no moments at"):
        load_moments(path.with_name("x"), rows_digest=ROWS.digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumMismatchError, match="its record says"):
        load_moments(path, rows_digest=ROWS.digest)
    path.with_name(path.name + ".json").write_text("{}")
    with pytest.raises(StoreFormatError, match="not a record"):
        load_moments(path, rows_digest=ROWS.digest)


def test_record_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="made_from"):
        save_moments(class_moments(ROWS), tmp_path / "m", {"made_from": {}})
