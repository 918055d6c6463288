"""Synthetic rows in one fixed order, class after class: as blocks in memory or as shards of a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ltstore.cores import resolve_n_workers
from ltstore.errors import ConfigError, DataError, PlanMismatchError
from ltstore.sampling.base import BaseSampler
from ltstore.types import (
    ByteArray,
    FloatArray,
    IntArray,
    Progress,
    RowStatus,
    Sampler,
    SyntheticRows,
    no_progress,
)

BLOCK_ROWS = 1024


class ShardPlan(Protocol):
    """Which rows a shard holds."""

    def shard_range(self, shard: int, /) -> tuple[int, int]:
        """Return (start, stop) of a shard."""


class ShardWriter(Protocol):
    """What `materialize` needs of the store's split writer."""

    @property
    def plan(self) -> Any:
        """A `ShardPlan` with `n_rows`."""

    @property
    def pending(self) -> Iterable[int]:
        """Shards that are not written yet."""

    def write_shard(
        self,
        shard: int,
        *,
        embeddings: FloatArray,
        labels: IntArray,
        status: ByteArray,
        keys: Sequence[str],
        errors: Sequence[str | None],
        timings: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Any:
        """Write one whole shard."""

    def finish(self) -> Any:
        """Mark the split as complete."""


def read_synthetic(
    sampler: Sampler, targets: IntArray, start: int, stop: int, *, seed: int, epoch: int = 0
) -> SyntheticRows:
    """Return rows [start, stop) of the whole synthetic set: all of class 0, then of class 1, and so on.

    Parameters
    ----------
    sampler : Sampler
        Fitted.
    targets : (C,) int64
        Synthetic rows of each class, see `balance_targets`.
    start, stop : int
        Within 0 .. targets.sum().

    Returns
    -------
    SyntheticRows
        New arrays; the same rows however the range is cut.
    """
    edges = np.concatenate([[0], np.cumsum(targets)])
    if not 0 <= start <= stop <= edges[-1]:
        raise ConfigError(f"rows [{start}, {stop}) are outside the {edges[-1]} synthetic rows")
    parts = [
        sampler.sample(
            int(c),
            max(start - int(edges[c]), 0),
            min(stop, int(edges[c + 1])) - int(edges[c]),
            seed=seed,
            epoch=epoch,
        )
        for c in np.flatnonzero((edges[:-1] < stop) & (edges[1:] > start) & (targets > 0))
    ]
    if not parts:
        raise ConfigError("an empty range of synthetic rows was asked for")
    if len(parts) == 1:
        return parts[0]
    return SyntheticRows(
        X=np.concatenate([part.X for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        parent_ids=np.concatenate([part.parent_ids for part in parts]),
        donor_ids=np.concatenate([part.donor_ids for part in parts]),
    )


def synthetic_blocks(
    sampler: Sampler, targets: IntArray, *, seed: int, epoch: int = 0, block_rows: int = 8192
) -> Iterator[SyntheticRows]:
    """Yield all synthetic rows in order, at most `block_rows` at a time; nothing where targets are all 0."""
    if block_rows < 1:
        raise ConfigError(f"block_rows must be at least 1, found {block_rows}")
    total = int(np.sum(targets))
    for start in range(0, total, block_rows):
        yield read_synthetic(sampler, targets, start, min(start + block_rows, total), seed=seed, epoch=epoch)


def materialize(
    sampler: BaseSampler,
    targets: IntArray,
    writer: ShardWriter,
    *,
    seed: int,
    epoch: int = 0,
    n_workers: int | str = "auto",
    progress: Progress = no_progress,
) -> None:
    """Write the synthetic rows into a split, shard by shard; a resumed run writes what is missing.

    Each row is stored with the ids of the real rows and the classes that it was made of ("parent_ids",
    "donor_ids"; -1 entries left out), and with the key ``sampler/seed/epoch/class/number``.

    Parameters
    ----------
    sampler : BaseSampler
        Fitted.
    targets : (C,) int64
        Their sum must be the number of rows of the writer's plan.
    writer : ShardWriter
        Of the split to fill; finished at the end.
    n_workers : int or "auto"
        Threads that draw, by default one a core. What is written does not depend on it.
    progress : Progress
        Called after every block drawn and, with 0 rows, after a shard has been written.

    Raises
    ------
    PlanMismatchError
        The plan has another number of rows.
    DataError
        A class with a target has no rows.

    Notes
    -----
    One more thread writes a shard while the next is drawn. Memory: two shards of float32 rows (256 MiB each at most in
    the usual plan) and their file, whatever the number of rows and workers.
    """
    targets = np.asarray(targets, np.int64)
    total = int(targets.sum())
    if writer.plan.n_rows != total:
        raise PlanMismatchError(
            f"the split is planned for {writer.plan.n_rows} rows, the targets add up to {total}: plan it again"
        )
    if len(targets) != len(sampler.rows.class_names):
        raise DataError(f"targets are of {len(targets)} classes, the rows of {len(sampler.rows.class_names)}")
    n_threads = resolve_n_workers(n_workers)
    edges = np.concatenate([[0], np.cumsum(targets)])
    prefix = f"{sampler.name}/{seed}/{epoch}"

    def draw(start: int, X: FloatArray) -> tuple[SyntheticRows, float]:
        began = time.perf_counter()
        made = read_synthetic(sampler, targets, start, start + len(X), seed=seed, epoch=epoch)
        np.copyto(X, made.X)
        return replace(made, X=X), time.perf_counter() - began

    def write(shard: int, start: int, made: SyntheticRows, spent: float) -> float:
        began = time.perf_counter()
        n = len(made.labels)
        numbers = np.arange(start, start + n) - edges[made.labels]
        writer.write_shard(
            shard,
            embeddings=made.X,
            labels=made.labels,
            status=np.full(n, RowStatus.OK, np.uint8),
            keys=[f"{prefix}/{c}/{i}" for c, i in zip(made.labels.tolist(), numbers.tolist(), strict=True)],
            errors=[None] * n,
            timings={"sample": spent},
            extra={name: np.ma.masked_less(getattr(made, name), 0) for name in ("parent_ids", "donor_ids")},
        )
        return time.perf_counter() - began

    def written(writing: Future[float]) -> None:
        progress(0, {"write": writing.result()})

    writing: Future[float] | None = None
    with (
        ThreadPoolExecutor(1, thread_name_prefix="ltstore-write") as pen,
        ThreadPoolExecutor(n_threads, thread_name_prefix="ltstore-draw") as drawers,
    ):
        for shard in list(writer.pending):
            start, stop = writer.plan.shard_range(shard)
            X = np.empty((stop - start, sampler.rows.n_features), np.float32)
            made, spent = _drawn(drawers, draw, start, X, progress)
            if writing is not None:
                written(writing)
            writing = pen.submit(write, shard, start, made, spent)
        if writing is not None:
            written(writing)
    writer.finish()


def _drawn(
    drawers: Executor,
    draw: Callable[[int, FloatArray], tuple[SyntheticRows, float]],
    start: int,
    X: FloatArray,
    progress: Progress,
) -> tuple[SyntheticRows, float]:
    """Return the rows from `start` on that fill `X`, drawn block by block by all drawers, and the seconds they took."""
    futures = [drawers.submit(draw, start + at, X[at : at + BLOCK_ROWS]) for at in range(0, len(X), BLOCK_ROWS)]
    blocks: list[SyntheticRows] = []
    spent = 0.0
    try:
        for future in futures:
            block, seconds = future.result()
            blocks.append(block)
            spent += seconds
            progress(len(block.labels), {"sample": seconds})
    finally:
        for future in futures:
            future.cancel()
    labels, parent_ids, donor_ids = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("labels", "parent_ids", "donor_ids")
    )
    return SyntheticRows(X=X, labels=labels, parent_ids=parent_ids, donor_ids=donor_ids), spent
