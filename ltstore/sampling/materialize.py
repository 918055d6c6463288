"""Synthetic rows in one fixed order, class after class: as blocks in memory or as shards of a store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

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
        extra: Mapping[str, Sequence[Any]] | None = None,
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

    Raises
    ------
    PlanMismatchError
        The plan has another number of rows.
    DataError
        A class with a target has no rows.
    """
    targets = np.asarray(targets, np.int64)
    total = int(targets.sum())
    if writer.plan.n_rows != total:
        raise PlanMismatchError(
            f"the split is planned for {writer.plan.n_rows} rows, the targets add up to {total}: plan it again"
        )
    if len(targets) != len(sampler.rows.class_names):
        raise DataError(f"targets are of {len(targets)} classes, the rows of {len(sampler.rows.class_names)}")
    edges = np.concatenate([[0], np.cumsum(targets)])
    for shard in list(writer.pending):
        began = time.perf_counter()
        start, stop = writer.plan.shard_range(shard)
        made = read_synthetic(sampler, targets, start, stop, seed=seed, epoch=epoch)
        numbers = np.arange(start, stop) - edges[made.labels]
        drawn = time.perf_counter()
        writer.write_shard(
            shard,
            embeddings=made.X,
            labels=made.labels,
            status=np.full(stop - start, RowStatus.OK, np.uint8),
            keys=[f"{sampler.name}/{seed}/{epoch}/{c}/{i}" for c, i in zip(made.labels, numbers, strict=True)],
            errors=[None] * (stop - start),
            timings={"sample": drawn - began},
            extra={"parent_ids": _present(made.parent_ids), "donor_ids": _present(made.donor_ids)},
        )
        progress(stop - start, {"sample": drawn - began, "write": time.perf_counter() - drawn})
    writer.finish()


def _present(ids: IntArray) -> list[list[int]]:
    return [[i for i in row if i >= 0] for row in ids.tolist()]
