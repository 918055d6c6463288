"""Minibatches: what comes, in which order, and what is read for it."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.rows import ArrayRows
from ltstore.store import open_store
from ltstore.stream import Batch, BatchPlan, iter_batches
from ltstore.types import FloatArray, IntArray
from support.stores import made_store

SMALL = {"batch_size": 16, "segment_rows": 8, "buffer_rows": 64}


class CountingRows(ArrayRows):
    """Rows that count what is read of them, and break at one."""

    def __init__(self, *arguments: Any, broken: int = -1, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.seen = np.zeros(self.n_samples, np.int64)
        self.broken = broken
        self.threads: set[str] = set()

    def read(self, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
        self.threads.add(threading.current_thread().name)
        if start <= self.broken < stop:
            raise OSError("the disk is gone")
        self.seen[start:stop] += 1
        return super().read(start, stop, out)

    def take(self, positions: IntArray, out: FloatArray | None = None) -> FloatArray:
        self.threads.add(threading.current_thread().name)
        if self.broken in positions:
            raise OSError("the disk is gone")
        np.add.at(self.seen, positions, 1)
        return super().take(positions, out)


def made_rows(n: int = 300, **settings: Any) -> CountingRows:
    X = np.random.default_rng(3).standard_normal((n, 6)).astype(np.float32)
    labels = np.where(np.arange(n) % 5 == 4, -1, np.arange(n) % 3)
    return CountingRows(X, labels, row_ids=np.arange(n) * 2, **settings)


def ids(batches: list[Batch]) -> list[list[int]]:
    return [batch.row_ids.tolist() for batch in batches]


def reader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ltstore-batches")]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [{}, {"buffer_rows": 0}, {"buffer_rows": 0, "segment_rows": 20}])
def test_rows_come_with_their_labels_and_ids(
    shuffle: bool, prefetch: int, dtype: Any, shape: dict[str, int]
) -> None:
    rows = made_rows()
    settings: dict[str, Any] = {**SMALL, "shuffle": shuffle, "prefetch": prefetch, "dtype": dtype, **shape}
    batches = list(iter_batches(rows, **settings))
    assert [len(batch.X) for batch in batches] == [16] * 18 + [12]
    for batch in batches:
        positions = batch.row_ids // 2
        assert batch.X.dtype == dtype
        assert batch.X.flags.c_contiguous
        assert batch.labels.dtype == np.int64
        np.testing.assert_array_equal(batch.X, rows.take(positions).astype(dtype))
        np.testing.assert_array_equal(batch.labels, rows.labels[positions])
    np.testing.assert_array_equal(np.sort(np.concatenate(ids(batches))), rows.row_ids)


def test_store_rows_come_as_read(tmp_path: Path) -> None:
    made_store(tmp_path / "store", 60)
    rows = open_store(tmp_path / "store").split("train").rows()
    for batch in iter_batches(rows, 8, segment_rows=4, buffer_rows=24):
        positions = np.searchsorted(rows.row_ids, batch.row_ids)
        np.testing.assert_array_equal(batch.X, rows.take(positions))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    rows = made_rows()
    first = ids(list(iter_batches(rows, **SMALL, seed=1, epoch=2)))
    assert first == ids(list(iter_batches(rows, **SMALL, seed=1, epoch=2, prefetch=0)))
    assert first != ids(list(iter_batches(rows, **SMALL, seed=1, epoch=3)))
    assert first != ids(list(iter_batches(rows, **SMALL, seed=2, epoch=2)))
    assert first != ids(list(iter_batches(rows, **SMALL, seed=1, epoch=2, shuffle=False)))


@pytest.mark.parametrize(
    "shape", [{"shuffle": True}, {"shuffle": True, "buffer_rows": 0}, {"shuffle": False}], ids=str
)
@pytest.mark.parametrize("start", [0, 1, 3, 4, 11, 18, 19])
def test_a_later_start_reads_only_what_it_gives(start: int, shape: dict[str, Any]) -> None:
    settings: dict[str, Any] = {**SMALL, **shape}
    whole = ids(list(iter_batches(made_rows(), **settings)))
    rows = made_rows()
    rest = list(iter_batches(rows, **settings, start_batch=start))
    assert ids(rest) == whole[start:]
    for batch in rest:
        np.testing.assert_array_equal(batch.X, ArrayRows.take(rows, batch.row_ids // 2))
    wanted = np.zeros(300, np.int64)
    wanted[np.concatenate([np.empty(0, np.int64), *(np.array(batch) // 2 for batch in whole[start:])])] = 1
    np.testing.assert_array_equal(rows.seen, wanted)


def test_batches_are_kept_unless_reuse() -> None:
    rows = made_rows()
    kept = list(iter_batches(rows, **SMALL))
    assert all(np.array_equal(batch.X, rows.take(batch.row_ids // 2)) for batch in kept)
    kept = list(iter_batches(rows, **SMALL, reuse=True))
    assert any(not np.array_equal(batch.X, rows.take(batch.row_ids // 2)) for batch in kept)


@pytest.mark.parametrize("prefetch", [0, 1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_reused_buffers_hold_until_the_next_step(prefetch: int, shuffle: bool) -> None:
    rows = made_rows()
    n = 0
    for batch in iter_batches(rows, **SMALL, reuse=True, prefetch=prefetch, shuffle=shuffle):
        np.testing.assert_array_equal(batch.X, ArrayRows.take(rows, batch.row_ids // 2))
        n += len(batch.X)
    assert n == 300


def test_reading_stays_ahead_by_no_more_than_asked() -> None:
    rows = made_rows(1000)
    batches = iter_batches(rows, **SMALL, prefetch=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert rows.seen.sum() in (64, 128, 192)
    assert rows.threads == {"ltstore-batches_0"}


def test_stopping_early_ends_the_thread() -> None:
    batches = iter_batches(made_rows(1000), **SMALL)
    next(batches)
    assert reader_threads()
    batches.close()  # type: ignore[attr-defined]
    assert not reader_threads()
    batches = iter_batches(made_rows(1000), **SMALL)
    next(batches)
    del batches
    gc.collect()
    assert not reader_threads()
    list(iter_batches(made_rows(), **SMALL))
    assert not reader_threads()


def test_a_program_may_end_in_the_middle() -> None:
    code = (
        "import numpy as np; from ltstore import ArrayRows, iter_batches\n"
        "b = iter_batches(ArrayRows(np.zeros((500, 4))), 8, buffer_rows=16); next(b)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_errors_of_reading_come_out_where_the_rows_were_needed(prefetch: int) -> None:
    batches = iter_batches(made_rows(broken=130), **SMALL, shuffle=False, prefetch=prefetch)
    taken = []
    with pytest.raises(OSError, match="the disk is gone"):
        taken.extend(batches)
    assert next(batches, None) is None
    assert not reader_threads()
    batches = iter_batches(made_rows(broken=130), **SMALL, shuffle=False, prefetch=prefetch)
    assert [next(batches).row_ids[0] for _ in range(8)] == list(range(0, 256, 32))


def test_values_beyond_float16_are_refused() -> None:
    rows = ArrayRows(np.full((4, 2), 1e6, np.float32))
    with pytest.raises(DataError, match="does not fit float16"):
        list(iter_batches(rows, 2, dtype=np.float16))


def test_no_rows_no_batches() -> None:
    assert list(iter_batches(ArrayRows(np.empty((0, 4), np.float32)), 8)) == []


def test_left_out_rows_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        list(iter_batches(made_rows(), **SMALL, drop_last=True))
    assert "12 of 300 rows are left out" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"segment_rows": 0},
        {"seed": -1},
        {"epoch": True},
        {"rank": 2, "world_size": 2},
        {"worker": 1},
        {"prefetch": -1},
        {"start_batch": 20, "batch_size": 16},
        {"start_batch": -1},
        {"dtype": np.int64},
        {"drop_last": True, "batch_size": 301},
        {"equal_batches": True, "batch_size": 100, "world_size": 4},
    ],
)
def test_bad_settings_are_refused_at_the_call(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        iter_batches(made_rows(), **settings)


@pytest.mark.parametrize(
    ("segment_rows", "buffer_rows", "independent"),
    [(64, 16384, 1 / (1 / 1024 + 64 / 16384)), (64, 0, 16), (1, 0, 1024)],
)
def test_shuffle_mixes_rows_that_lie_class_by_class(
    segment_rows: int, buffer_rows: int, independent: float
) -> None:
    """Class shares vary about as BatchPlan's notes say."""
    labels = np.repeat(np.arange(50), 1280)
    plan = BatchPlan(n_samples=len(labels), batch_size=1024, segment_rows=segment_rows, buffer_rows=buffer_rows)
    shares = np.array([np.bincount(labels[b], minlength=50) / len(b) for b in plan.batches() if len(b) == 1024])
    expected = np.sqrt(0.02 * 0.98 / independent)
    assert 0.8 * expected < shares.std(axis=0).mean() < 1.1 * expected


def test_importing_the_room_loads_no_torch() -> None:
    code = "import sys, ltstore.stream; from ltstore import iter_batches; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("shape", [{"buffer_rows": 0}, {"buffer_rows": 500, "segment_rows": 500}])
@pytest.mark.parametrize("name", ["seed", "epoch"])
def test_segments_and_buffers_both_follow_seed_and_epoch(name: str, shape: dict[str, int]) -> None:
    """The first shape shuffles by segments alone, the second within one buffer alone."""
    settings: dict[str, Any] = {"n_samples": 500, "batch_size": 100, "segment_rows": 10, **shape}
    first, second = (np.concatenate(list(BatchPlan(**{**settings, name: n}).batches())) for n in (0, 1))
    assert (first == second).mean() < 0.1
    assert (first == np.arange(500)).mean() < 0.1
