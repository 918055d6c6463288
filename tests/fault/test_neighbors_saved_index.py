"""A saved index answers as before; a missing, foreign or damaged one is named before FAISS parses it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import (
    BackendUnavailableError,
    ChecksumMismatchError,
    ConfigError,
    IndexNotFoundError,
    IndexStaleError,
    StoreFormatError,
    StoreReadError,
    StoreWriteError,
)
from ltstore.neighbors import build_index, load_index, save_index
from ltstore.neighbors.faiss_index import read_index
from ltstore.provenance import record
from ltstore.rows import ArrayRows

ROWS = ArrayRows(np.random.default_rng(0).normal(size=(50, 6)), row_ids=np.arange(50) * 3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made = record("index", settings={"kind": "flat"}, made_from={"rows": ROWS.digest})
    save_index(build_index(ROWS, device="cpu"), tmp_path / "flat", made)
    return tmp_path / "flat"


def test_round_trip(saved: Path) -> None:
    loaded, built = load_index(saved, rows=ROWS, device="cpu"), build_index(ROWS, device="cpu")
    for found, expected in zip(
        loaded.search(ROWS.read(0, 9), 4), built.search(ROWS.read(0, 9), 4), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert (loaded.kind, loaded.metric, loaded.rows_digest) == ("flat", "cosine", ROWS.digest)
    save_index(built, saved, {})  # replaces
    assert [p.name for p in saved.parent.iterdir()] == ["flat"]


def test_a_disk_that_is_full_is_one_line_and_the_old_index_stays(saved: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreWriteError, match=r"cannot write .*flat: File too large") as caught:
            save_index(build_index(ROWS, device="cpu"), saved, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert load_index(saved, rows=ROWS, device="cpu").n_samples == 50


def test_what_faiss_cannot_read_is_one_line(saved: Path) -> None:
    file = saved / "index.faiss"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(StoreReadError, match=r"cannot read .*index\.faiss: "):
        read_index(file)


def test_missing(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="build one first"):
        load_index(tmp_path / "other", rows=ROWS)
    (saved / "index.faiss").unlink()
    with pytest.raises(IndexNotFoundError, match="missing beside its record"):
        load_index(saved, rows=ROWS)


def test_foreign_rows(saved: Path) -> None:
    other = ArrayRows(ROWS.read(0, 50) * 2, row_ids=ROWS.row_ids)
    with pytest.raises(IndexStaleError, match="build it again"):
        load_index(saved, rows=other)


@pytest.mark.parametrize("place", [0, 20, -1])
def test_flipped_byte(saved: Path, place: int) -> None:
    file = saved / "index.faiss"
    data = bytearray(file.read_bytes())
    data[place] ^= 0x40
    file.write_bytes(data)
    with pytest.raises(ChecksumMismatchError, match="its record says"):
        load_index(saved, rows=ROWS)


def test_truncated(saved: Path) -> None:
    file = saved / "index.faiss"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ChecksumMismatchError):
        load_index(saved, rows=ROWS)


def test_bad_record(saved: Path) -> None:
    path = saved / "record.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "format_version": 99}))
    with pytest.raises(StoreFormatError, match="version 99"):
        load_index(saved, rows=ROWS)
    path.write_text(json.dumps({**data, "k": data["k"] + 1}))
    with pytest.raises(StoreFormatError, match="has changed since it was written"):
        load_index(saved, rows=ROWS)
    for text in ("not json", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(StoreFormatError, match="not a record"):
            load_index(saved, rows=ROWS)


def test_choices_are_resolved_and_explicit_ones_never_fall_back() -> None:
    index = build_index(ROWS, kind="auto")
    assert index.kind == "flat"
    assert set(index.reasons) == {"kind", "device"}
    with pytest.raises(ConfigError, match="unknown index kind"):
        build_index(ROWS, kind="ivff")
    with pytest.raises(ConfigError, match="unknown device"):
        build_index(ROWS, device="gpu")
    with pytest.raises(BackendUnavailableError, match="asked for"):
        build_index(ROWS, device="cuda:63")


def test_import_loads_no_faiss() -> None:
    code = "import sys, ltstore.neighbors; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
