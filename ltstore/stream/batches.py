"""Minibatches for a training loop of one's own: a plan carried out, read ahead by a thread."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ltstore.errors import ConfigError, DataError
from ltstore.stream.batch_plan import BATCH_ROWS, SEGMENT_ROWS, BatchPlan, Buffer, check_at_least
from ltstore.types import FloatArray, IntArray, Rows

BLOCK_ROWS = 256  # read and cast together: small enough to stay in a cache
LONG_RUN = 1024  # runs longer than this are read in order, shorter ones row by row in one go
_log = logging.getLogger(__name__)

Wanted = TypeVar("Wanted")
Found = TypeVar("Found")


class Batch(NamedTuple):
    """One minibatch: X (n, D), labels (n,) int64 (-1 where unknown) and row_ids (n,) int64."""

    X: NDArray[np.floating[Any]]
    labels: IntArray
    row_ids: IntArray


def iter_batches(
    rows: Rows,
    batch_size: int = BATCH_ROWS,
    *,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    segment_rows: int = SEGMENT_ROWS,
    buffer_rows: int = 0,
    rank: int = 0,
    world_size: int = 1,
    worker: int = 0,
    n_workers: int = 1,
    drop_last: bool = False,
    equal_batches: bool = False,
    start_batch: int = 0,
    dtype: DTypeLike = np.float32,
    reuse: bool = False,
    prefetch: int = 1,
) -> Iterator[Batch]:
    """Yield the minibatches of one epoch, read ahead by a thread.

    Parameters
    ----------
    rows : Rows
        Unlabelled rows come too, with label -1.
    batch_size, shuffle, seed, epoch, segment_rows, buffer_rows, rank, world_size, worker, n_workers : int, bool
        See `BatchPlan`.
    drop_last, equal_batches : bool
        See `BatchPlan`; the log says how many rows they leave out.
    start_batch : int
        Begin here, as if so many batches had been taken; rows of those are not read.
    dtype : float32, float64 or float16
        Of X.
    reuse : bool
        Write into the same buffers again and again: X is then valid until the next step only. Otherwise X is
        a view of a buffer that is never written again, and that lives as long as any batch of it.
    prefetch : int
        Buffers (without `buffer_rows`: batches) read ahead; 0 reads in the calling thread.

    Raises
    ------
    ConfigError
        A setting is out of range.
    DataError
        A value does not fit `dtype`.

    Notes
    -----
    Errors of reading are raised at the batch that needed the rows. Closing the iterator, or dropping it, ends
    the thread. Rows are read straight to where the batch has them; other types than float32 pass through a block
    of 256 rows, and with `buffer_rows` batches are views of the buffer. Memory:
    (prefetch + 1) * max(batch_size, buffer_rows) * D * itemsize, and once more where not `reuse`. Large
    buffers are slow to get from the system: use `reuse` with them.
    """
    plan = BatchPlan(
        n_samples=rows.n_samples,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        segment_rows=segment_rows,
        buffer_rows=buffer_rows,
        rank=rank,
        world_size=world_size,
        worker=worker,
        n_workers=n_workers,
        drop_last=drop_last,
        equal_batches=equal_batches,
    )
    return read_batches(rows, plan, start_batch=start_batch, dtype=dtype, reuse=reuse, prefetch=prefetch)


def read_batches(
    rows: Rows,
    plan: BatchPlan,
    *,
    start_batch: int = 0,
    dtype: DTypeLike = np.float32,
    reuse: bool = False,
    prefetch: int = 1,
) -> Iterator[Batch]:
    """Yield the batches of a plan: `iter_batches` for a plan that is there already."""
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64, np.float16):
        raise ConfigError(f"dtype must be float32, float64 or float16, found {kind}")
    if plan.n_samples != rows.n_samples:
        raise ConfigError(f"the plan is for {plan.n_samples} rows, found {rows.n_samples}")
    check_at_least(0, "prefetch", prefetch)
    if plan.n_dropped:
        _log.info("%d of %d rows are left out of epoch %d", plan.n_dropped, plan.n_samples, plan.epoch)
    return _batches(rows, plan, plan.buffers(start_batch), kind, reuse, prefetch)


def _batches(
    rows: Rows, plan: BatchPlan, buffers: Iterator[Buffer], dtype: np.dtype[Any], reuse: bool, prefetch: int
) -> Iterator[Batch]:
    ring: deque[NDArray[Any]] = deque()

    def fill(buffer: Buffer) -> tuple[NDArray[Any], IntArray]:
        if not reuse:
            X = np.empty((buffer.n_rows, rows.n_features), dtype)
        elif len(ring) <= prefetch:
            X = np.empty((buffer.n_rows, rows.n_features), dtype)
            ring.append(X)
        else:
            ring.rotate(-1)
            X = ring[-1][: buffer.n_rows]
        read_buffer(rows, buffer, X)
        return X[buffer.skip :], buffer.positions()

    for X, positions in read_ahead(fill, buffers, prefetch):
        labels, row_ids = np.take(rows.labels, positions), np.take(rows.row_ids, positions)
        for start in range(0, len(positions), plan.batch_size):
            where = slice(start, start + plan.batch_size)
            yield Batch(X[where], labels[where], row_ids[where])
        del X


def read_ahead(fill: Callable[[Wanted], Found], wanted: Iterator[Wanted], prefetch: int) -> Iterator[Found]:
    """Yield ``map(fill, wanted)``, `prefetch` results ahead; errors of `fill` are raised where its result was due."""
    if prefetch == 0:
        yield from map(fill, wanted)
        return
    waiting: deque[Future[Found]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="ltstore-batches")
    try:
        for one in wanted:
            waiting.append(pool.submit(fill, one))
            if len(waiting) > prefetch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_buffer(rows: Rows, buffer: Buffer, out: NDArray[Any]) -> None:
    """Read a buffer's rows to their places in `out` (n, D), cast to its dtype; skipped places are not written."""
    in_order = buffer.places is None and not buffer.skip and buffer.n_rows >= LONG_RUN * len(buffer.runs)
    if in_order and out.dtype == np.float32:
        at = 0
        for start, stop in buffer.runs.tolist():
            rows.read(start, stop, out=out[at : at + stop - start])
            at += stop - start
        return
    positions, given = buffer.positions(), out[buffer.skip :]
    if out.dtype == np.float32:
        rows.take(positions, out=given)
        return
    block = np.empty((min(BLOCK_ROWS, len(positions)), rows.n_features), np.float32)
    for at in range(0, len(positions), BLOCK_ROWS):
        wanted = positions[at : at + BLOCK_ROWS]
        _cast(rows.take(wanted, out=block[: len(wanted)]), given[at : at + len(wanted)])


def _cast(X: FloatArray, out: NDArray[Any]) -> None:
    if out.dtype != np.float16:
        np.copyto(out, X)
        return
    with np.errstate(over="raise"):
        try:
            out[...] = X.astype(np.float16)
        except FloatingPointError as err:
            raise DataError(
                f"a value of {np.abs(X).max():g} does not fit float16: read float32, or normalised rows"
            ) from err
