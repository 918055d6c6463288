"""Encoded rows, gathered shard by shard."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from ltstore.encode.gpu_use import gpu_use
from ltstore.encode.pipeline import EncodedBatch, batch_spans, encoded_spans
from ltstore.sources import LabelledSource, none_there
from ltstore.store import ShardPlan, SplitWriter
from ltstore.types import Encoder, EncoderIdentity, ImageSource, Progress, RowStatus

_MOST_MISSING_BY_CHANCE = 64
"""A last shard of fewer rows may lack them all without anything being wrong with the rest."""


def parts_of(encoder: Encoder) -> tuple[EncoderIdentity, ...]:
    """Return the identities of the kinds of features that an encoder gives: of most its own."""
    return getattr(encoder, "parts", None) or (encoder.identity,)


def lacking(writers: Sequence[SplitWriter]) -> dict[int, tuple[int, ...]]:
    """Return the shards that not all of these splits have, ascending, and the positions of those that lack each."""
    pending = [frozenset(writer.pending) for writer in writers]
    return {
        number: tuple(place for place, numbers in enumerate(pending) if number in numbers)
        for number in sorted(frozenset().union(*pending))
    }


class EncodedShard:
    """The rows of one shard, gathered batch by batch; of every kind of features that the encoder gives."""

    def __init__(self, number: int, start: int, stop: int, parts: Sequence[EncoderIdentity]) -> None:
        self.number, self.start, self.stop = number, start, stop
        self._edges = [0, *accumulate(part.n_features for part in parts)]
        self.X = np.empty((stop - start, self._edges[-1]), np.float32)
        self.status = np.empty(stop - start, np.uint8)
        self.errors: list[str | None] = []
        self.timings: Counter[str] = Counter()

    def add(self, batch: EncodedBatch) -> None:
        """Take the batch that follows."""
        at = slice(batch.start - self.start, batch.start - self.start + len(batch.X))
        self.X[at], self.status[at] = batch.X, batch.status
        self.errors += batch.errors
        self.timings.update(batch.seconds)

    def columns(self, source: ImageSource) -> list[dict[str, Any]]:
        """Return what `ltstore.store.ShardWriter.write` takes, for each kind of features."""
        shared = {
            "labels": source.labels[self.start : self.stop],
            "status": self.status,
            "keys": [source.key(i) for i in range(self.start, self.stop)],
            "errors": self.errors,
            "timings": self.timings,
        }
        return [{"embeddings": self.X[:, low:high], **shared} for low, high in pairwise(self._edges)]


def encoded_shards(
    source: ImageSource,
    encoder: Encoder,
    plan: ShardPlan,
    numbers: Sequence[int],
    batch_size: int,
    n_workers: int,
    progress: Progress,
    on_failed: Callable[[int], None] = lambda n_rows: None,
) -> Generator[EncodedShard, None, None]:
    """Yield shards of a plan, encoded; one stream of batches, so decoding runs on across shards.

    Progress hears of every batch, and with 0 rows of the seconds of a shard: "wall"; "threads", what those that read
    and decode had in that time; and where there are GPUs that tell, "gpu", how long they worked, of "gpu_wall".

    Raises
    ------
    SourceError
        Not one image of a shard is there, and it is not a small last one.
    """
    knows_missing = isinstance(source, LabelledSource) and source.knows_missing
    ranges = [(number, *plan.shard_range(number)) for number in numbers]
    spans = [span for _, start, stop in ranges for span in batch_spans(start, stop, batch_size)]
    batches = encoded_spans(source, encoder, spans, n_workers, progress)
    began, parts = time.perf_counter(), parts_of(encoder)
    try:
        for number, start, stop in ranges:
            shard = EncodedShard(number, start, stop, parts)
            worked: list[float] = []
            for _ in batch_spans(start, stop, batch_size):
                batch = next(batches)
                shard.add(batch)
                if n_failed := int((batch.status != RowStatus.OK).sum()):
                    on_failed(n_failed)
                if (share := gpu_use(encoder.device)) is not None:
                    worked.append(share)
            wall = time.perf_counter() - began
            began += wall
            spent = {"wall": wall, "threads": n_workers * wall}
            if worked:
                spent |= {"gpu": wall * sum(worked) / len(worked), "gpu_wall": wall}
            shard.timings.update(spent)
            progress(0, spent)
            by_chance = stop - start < _MOST_MISSING_BY_CHANCE and plan.n_shards > 1
            if (shard.status == RowStatus.MISSING).all() and not (by_chance or knows_missing):
                raise none_there(source, start, stop)
            yield shard
    finally:
        batches.close()
