"""Which rows come in which minibatch of an epoch. Pure: needs the number of rows, no rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ltstore.errors import ConfigError
from ltstore.rng import stream
from ltstore.types import IntArray

BATCH_ROWS = 4096
SEGMENT_ROWS = 64


@dataclass(frozen=True, eq=False)
class Buffer:
    """Rows that are read together and given out as consecutive batches.

    Attributes
    ----------
    runs : (k, 2) int64
        Start and stop of the positions to read, in the order of reading.
    places : (n,) int64 or None
        Where row i of the runs, laid end to end, goes: a permutation of 0..n-1; None leaves it where it is.
    skip : int
        Rows at places below this were given out before and are not to be read.
    """

    runs: IntArray
    places: IntArray | None
    skip: int = 0

    @property
    def n_rows(self) -> int:
        """Rows of the runs, skipped ones included."""
        return int((self.runs[:, 1] - self.runs[:, 0]).sum())

    def positions(self) -> IntArray:
        """Return (n - skip,) int64: the positions in the order in which they are given out."""
        return self._positions

    @cached_property
    def _positions(self) -> IntArray:
        lengths = self.runs[:, 1] - self.runs[:, 0]
        ends = np.cumsum(lengths)
        read = np.repeat(self.runs[:, 1] - ends, lengths) + np.arange(ends[-1])
        if self.places is None:
            return read[self.skip :]
        given = np.empty_like(read)
        given[self.places] = read
        return given[self.skip :]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which positions come in which batch of one epoch, for one rank and one of its workers. Pure.

    The epoch is one sequence of rows: all of them in their order, or, shuffled, segments of `segment_rows`
    consecutive rows in random order. Batch b is made of rows [b, b + 1) * `batch_size` of it. Each rank gets
    a contiguous share of the batches. With `buffer_rows`, the rows of several batches in a row are permuted
    among them. The rank's workers take its buffers in turn (without buffers, its batches).

    Parameters
    ----------
    n_samples : int
        N.
    batch_size : int
        Rows of a batch; only the last batch of the epoch may have fewer.
    shuffle : bool
        A pure function of (seed, epoch): the same on every rank.
    seed, epoch : int
    segment_rows : int
        Consecutive rows that are read together.
    buffer_rows : int
        Rows that are permuted together, rounded down to whole batches; at most one batch: none are. A batch by
        itself is not permuted, as the order within it makes no difference to a gradient.
    rank, world_size, worker, n_workers : int
        Whose batches: every row goes to exactly one worker of one rank. Numbers of batches of two ranks differ
        by at most one.
    drop_last : bool
        Leave out the last batch where it is short.
    equal_batches : bool
        Leave out the last batches of the epoch so that every rank gets the same number, as
        DistributedDataParallel needs. `n_dropped` says how many rows that costs.

    Raises
    ------
    ConfigError
        A setting is out of range, or so few rows are there that dropping would leave none.

    Notes
    -----
    Quality of the shuffle: a batch is made of m = batch_size / segment_rows random segments, or is a random
    part of a buffer of m = buffer_rows / segment_rows. Where the rows lie in random order that is a full
    shuffle. Where they lie class by class, the share of a class in a batch varies as if about
    1 / (1/batch_size + 1/m) rows had been drawn independently with buffers, and m without (64 by default):
    smaller segments and buffers mix better. `segment_rows` = 1 is a full shuffle of single rows.
    CPU time of reading float16 rows from a store in the page cache (D = 768), against segments of 256: the same with 64
    and 32, twice with single rows, two to four times with a buffer of 32,768 rows.
    """

    n_samples: int
    batch_size: int = BATCH_ROWS
    shuffle: bool = True
    seed: int = 0
    epoch: int = 0
    segment_rows: int = SEGMENT_ROWS
    buffer_rows: int = 0
    rank: int = 0
    world_size: int = 1
    worker: int = 0
    n_workers: int = 1
    drop_last: bool = False
    equal_batches: bool = False

    def __post_init__(self) -> None:
        for name in ("n_samples", "buffer_rows", "seed", "epoch", "rank", "worker"):
            check_at_least(0, name, getattr(self, name))
        for name in ("batch_size", "segment_rows", "world_size", "n_workers"):
            check_at_least(1, name, getattr(self, name))
        for part, whole in (("rank", "world_size"), ("worker", "n_workers")):
            if getattr(self, part) >= getattr(self, whole):
                raise ConfigError(
                    f"{part} must be below {whole}, found {getattr(self, part)} of {getattr(self, whole)}"
                )
        if self.n_samples and self.n_dropped == self.n_samples:
            raise ConfigError(
                f"{self.n_samples} rows make no batch of {self.batch_size} for each of {self.world_size} ranks "
                f"with drop_last={self.drop_last}, equal_batches={self.equal_batches}: make batches smaller"
            )

    @property
    def n_all_batches(self) -> int:
        """Batches of the epoch, all ranks together."""
        n = self.n_samples // self.batch_size
        if self.n_samples % self.batch_size and not self.drop_last:
            n += 1
        return n - n % self.world_size if self.equal_batches else n

    @property
    def n_dropped(self) -> int:
        """Rows that no rank gets, because of `drop_last` or `equal_batches`."""
        return max(0, self.n_samples - self.n_all_batches * self.batch_size)

    @property
    def n_rank_batches(self) -> int:
        """Batches of this rank, all its workers together."""
        first, last = self._share
        return last - first

    @property
    def n_batches(self) -> int:
        """Batches of this worker."""
        return sum(last - first for first, last in self._buffer_batches())

    @property
    def _share(self) -> tuple[int, int]:
        n = self.n_all_batches
        return n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size

    def _buffer_batches(self) -> Iterator[tuple[int, int]]:
        """Yield [first, last) batches of each buffer of this worker."""
        step = max(1, self.buffer_rows // self.batch_size) if self.shuffle else 1
        first, last = self._share
        for start in range(first + self.worker * step, last, step * self.n_workers):
            yield start, min(start + step, last)

    def buffers(self, start_batch: int = 0) -> Iterator[Buffer]:
        """Return an iterator over this worker's buffers, from its batch `start_batch` (0..n_batches) on."""
        check_at_least(0, "start_batch", start_batch)
        if start_batch > self.n_batches:
            raise ConfigError(f"start_batch must be at most {self.n_batches}, found {start_batch}")
        return self._buffers(start_batch)

    def _buffers(self, start_batch: int) -> Iterator[Buffer]:
        segments, ends = self._segments()
        for first, last in self._buffer_batches():
            if start_batch >= last - first:
                start_batch -= last - first
                continue
            start, stop = first * self.batch_size, min(last * self.batch_size, self.n_samples)
            places = None
            if self.shuffle and last - first > 1:
                places = stream(self.seed, "batches.buffer", first, self.epoch).permutation(stop - start)
            yield Buffer(self._runs(segments, ends, start, stop), places, start_batch * self.batch_size)
            start_batch = 0

    def batches(self, start_batch: int = 0) -> Iterator[IntArray]:
        """Yield (n,) int64, the positions of each batch of this worker from `start_batch` on."""
        for buffer in self.buffers(start_batch):
            positions = buffer.positions()
            for start in range(0, len(positions), self.batch_size):
                yield positions[start : start + self.batch_size]

    def _segments(self) -> tuple[IntArray, IntArray]:
        """Return segments in the order of the epoch, and where each ends in the sequence of rows."""
        n = -(-self.n_samples // self.segment_rows)
        segments = (
            stream(self.seed, "batches.segments", 0, self.epoch).permutation(n)
            if self.shuffle
            else np.arange(n)
        )
        lengths = np.minimum((segments + 1) * self.segment_rows, self.n_samples) - segments * self.segment_rows
        return segments, np.cumsum(lengths)

    def _runs(self, segments: IntArray, ends: IntArray, start: int, stop: int) -> IntArray:
        """Return the positions of rows [start, stop) of the sequence, as (k, 2) int64."""
        if not self.shuffle:
            return np.array([(start, stop)], np.int64)
        first, last = ends.searchsorted(start, side="right"), ends.searchsorted(stop, side="left")
        chosen = segments[first : last + 1]
        runs = np.empty((len(chosen), 2), np.int64)
        runs[:, 0] = chosen * self.segment_rows
        np.minimum(runs[:, 0] + self.segment_rows, self.n_samples, out=runs[:, 1])
        runs[-1, 1] -= ends[last] - stop
        runs[0, 0] += start - (ends[first - 1] if first else 0)
        return runs


def check_at_least(low: int, name: str, value: Any) -> None:
    """Raise ConfigError unless the value is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{name} must be an integer of at least {low}, found {value!r}")
