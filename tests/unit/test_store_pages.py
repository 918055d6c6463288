"""Pages of mapped files: resident memory stays bounded, and what is read stays right."""

from __future__ import annotations

import gc
import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ltstore.store import create_store, open_store, pages
from ltstore.types import UNLABELLED
from support.stores import identity

N_ROWS, N_FEATURES, SHARD_ROWS = 40_000, 64, 2048  # 5 MB of float16 in 20 shards

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc/self/smaps")


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((N_ROWS, N_FEATURES), np.float32).astype(np.float16)


@pytest.fixture
def touched(monkeypatch):
    fresh = pages._Touched()
    monkeypatch.setattr(pages, "_touched", fresh)
    return fresh


def stored(path: Path, X):
    store = create_store(path, encoder=identity(N_FEATURES), class_names=["a"])
    with store.begin_split("train", n_rows=len(X), source_digest="", rows_per_shard=SHARD_ROWS) as writer:
        for shard in writer.pending:
            start, stop = writer.plan.shard_range(shard)
            n = stop - start
            writer.write_shard(
                shard,
                embeddings=X[start:stop],
                labels=np.full(n, UNLABELLED),
                status=np.zeros(n, np.uint8),
                keys=[""] * n,
                errors=[None] * n,
            )
        writer.finish()
    return open_store(path).split("train").rows(normalize=False)


def resident(path: Path) -> int:
    """Bytes of the embeddings' files that are mapped and present."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = f"{path}/" in line and "/embeddings/" in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.parametrize("limit", [1 << 20, 1 << 30])
def test_reading_in_order_keeps_little_resident(tmp_path, monkeypatch, touched, X, limit):
    monkeypatch.setattr(pages, "RESIDENT_BYTES", limit)
    rows = stored(tmp_path / "s", X)
    out = np.empty((8192, N_FEATURES), np.float32)
    most = 0
    for _ in range(2):
        for start in range(0, N_ROWS, 8192):
            stop = min(start + 8192, N_ROWS)
            np.testing.assert_array_equal(rows.read(start, stop, out=out[: stop - start]), X[start:stop])
            most = max(most, resident(tmp_path))
    if limit == 1 << 20:
        assert 0 < most <= limit + SHARD_ROWS * N_FEATURES * 2 + (1 << 17)
    else:  # a store that fits is left alone
        assert most >= 0.9 * X.nbytes


def test_random_rows_keep_little_resident(tmp_path, monkeypatch, touched, X):
    monkeypatch.setattr(pages, "RESIDENT_BYTES", 1 << 20)
    rows = stored(tmp_path / "s", X)
    rng = np.random.default_rng(1)
    for _ in range(5):
        ids = rng.integers(0, N_ROWS, 700)
        np.testing.assert_array_equal(rows.take(ids), X[ids])
        assert resident(tmp_path) <= (1 << 20) + 700 * (1 << 16)
    rows.read(0, N_ROWS)
    assert resident(tmp_path) <= 1 << 20


@pytest.mark.parametrize("limit", [1 << 20, 1 << 30])
def test_shards_come_into_reach_one_by_one(tmp_path, monkeypatch, touched, X, limit):
    """A take after others knows their shards already; a row of another shard is found all the same."""
    monkeypatch.setattr(pages, "RESIDENT_BYTES", limit)
    rows = stored(tmp_path / "s", X)
    for ids in ([5000], [5001, 4999], [39_999, 0], [12_000, 12_000], np.arange(0, N_ROWS, 500)):
        np.testing.assert_array_equal(rows.take(np.array(ids)), X[ids])


def test_maps_that_are_closed_no_longer_count(tmp_path, touched, X):
    rows = stored(tmp_path / "s", X)
    rows.read(0, N_ROWS)
    assert touched._total == pytest.approx(X.nbytes, rel=0.01)
    del rows
    gc.collect()
    assert touched._total == 0
    assert not touched._bytes


def test_a_view_of_ordinary_memory_has_no_map(tmp_path):
    assert pages.mapping_of(np.zeros(3)) is None
    assert pages.mapping_of(np.frombuffer(b"abc", np.uint8)) is None
    (tmp_path / "f").write_bytes(b"abc")
    with (tmp_path / "f").open("rb") as handle:
        found = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    view = np.frombuffer(found, np.uint8)[1:]
    assert pages.mapping_of(view) is found
    pages.Pages(10).read(np.zeros(3), 10, in_order=True)


def test_without_advice_reading_goes_on(tmp_path, monkeypatch, touched, X):
    """Windows has no madvise."""
    for name in ("_NORMAL", "_IN_ORDER", "_AT_RANDOM", "_SOON", "_DONE"):
        monkeypatch.setattr(pages, name, None)
    monkeypatch.setattr(pages, "RESIDENT_BYTES", 1 << 16)
    rows = stored(tmp_path / "s", X)
    np.testing.assert_array_equal(rows.read(0, N_ROWS), X)
    np.testing.assert_array_equal(rows.take(np.arange(0, N_ROWS, 7)), X[::7])
