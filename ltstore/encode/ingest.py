"""A source through an encoder into a split of a store: shards are written while the next ones are encoded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ltstore.cores import check_positive, resolve_n_workers
from ltstore.encode.pipeline import (
    STAGES,
    EncodedBatch,
    batch_spans,
    encoded_spans,
    resolve_batch_size,
)
from ltstore.encode.pixels import NativePixels
from ltstore.encode.usage import Usage, usage_of
from ltstore.errors import ConfigError
from ltstore.sources import LabelledSource, check_present, none_there, relabelled
from ltstore.storage import Place, open_location
from ltstore.store import SplitWriter, is_store, open_or_create_store, open_store
from ltstore.store.format import DTYPES, RESERVED_NAMES, validate_name
from ltstore.types import Encoder, ImageSource, Progress, RowStatus, no_progress

_MOST_MISSING_BY_CHANCE = 64
"""A last shard of fewer rows may lack them all without anything being wrong with the rest."""


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What an ingest did.

    Attributes
    ----------
    store, split : str
    encoder, device : str
        Encoder spec and where it ran.
    first_row : int
        Row id of the first row of the source: 0, or where rows were appended the rows there were before.
    n_rows, n_failed : int
        Of the source; failed rows have no embedding.
    failures : dict of str to int
        Failed rows by status name.
    n_shards, resumed_shards : int
        Shards of the split, and those of them that an earlier run had written.
    n_encoded : int
        Rows that this run went through.
    seconds, images_per_second : float
        Wall time of this run, and n_encoded by it.
    shares : dict of str to float
        Of the working time of all threads, the share of "read", "decode" (with preprocessing), "encode", "write".
    usage : Usage or None
        How busy workers, encoder and writer were, and what limited the run; None where it was too short to tell.
    batch_size, n_workers : int
        As resolved.
    reasons : dict of str to str
        Why "batch_size" and "n_workers" are what they are.
    """

    store: str
    split: str
    encoder: str
    device: str
    first_row: int
    n_rows: int
    n_failed: int
    failures: dict[str, int]
    n_shards: int
    resumed_shards: int
    n_encoded: int
    seconds: float
    images_per_second: float
    shares: dict[str, float]
    usage: Usage | None
    batch_size: int
    n_workers: int
    reasons: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


def ingest(
    source: ImageSource,
    encoder: Encoder,
    store_path: Place,
    split: str,
    *,
    batch_size: int | str = "auto",
    n_workers: int | str = "auto",
    dtype: str = "auto",
    rows_per_shard: int | str = "auto",
    class_names: Sequence[str] | None = None,
    append: bool = False,
    source_record: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
    on_failed: Callable[[int], None] = lambda n_rows: None,
) -> IngestReport:
    """Encode a source into a split; the same call again takes up what a stopped one left.

    Parameters
    ----------
    source : ImageSource
        Its labels are mapped by class name onto the store's classes.
    encoder : Encoder
        Plain "pixels" takes its size from the store, or else from the source.
    store_path : path, URL or Location
        Created where there is nothing.
    split : str
    batch_size, n_workers : int or "auto"
        As in `iter_encoded`. Batches never cross a shard, so a resumed run forms the same ones.
    dtype, rows_per_shard, append
        As in `ltstore.store.Store.begin_split`.
    class_names : sequence of str, optional
        Classes of a new store; default the source's. An existing store must have these.
    source_record : mapping, optional
        What opens the source again (`ltstore.sources.source_record`): kept in the split's settings, for a repair.
    progress : callable
        Called after every batch, and with 0 rows after a shard has been written.
    on_failed : callable
        Called with the number of rows of a batch that have no embedding, where there are some.

    Raises
    ------
    EncoderMismatchError
        The store holds embeddings of another identity: names the differences.
    LabelError
        The source has a class that the store has not.
    SourceError
        Not one image of the source, or of a whole shard, is there (a wrong root, a lost disk): nothing is written
        of them, and the same call goes on once they are back.
    PlanMismatchError, StoreBusyError, StoreWriteError
        As in `ltstore.store`.

    Notes
    -----
    Memory: two shards of float32 rows, with "auto" at most 256 MiB each, and three batches of inputs. An error or
    Ctrl-C leaves whole shards.
    """
    began = time.perf_counter()
    # before anything is created
    n_threads = resolve_n_workers(n_workers)
    if batch_size != "auto":
        check_positive(batch_size, "batch_size")
    _check_split(split, dtype)
    path = open_location(store_path)
    existing = open_store(path) if is_store(path) else None
    if existing is not None and class_names is not None and tuple(class_names) != existing.class_names:
        raise ConfigError(f"class_names differ from the classes of {path}: leave them out, or use a new store")
    check_present(source)
    if isinstance(encoder, NativePixels):
        encoder = encoder.resolve(source, None if existing is None else existing.encoder)
    names = (
        existing.class_names if existing else tuple(source.class_names if class_names is None else class_names)
    )
    rows = relabelled(source, names)
    store = open_or_create_store(path, encoder=encoder.identity, class_names=names)
    if store.class_names != names:  # made by another process in this moment
        rows = relabelled(source, store.class_names)
    n_batch = resolve_batch_size(batch_size, encoder)
    seconds = Counter(dict.fromkeys(STAGES, 0.0))
    timings: Counter[str] = Counter()
    with store.begin_split(
        split,
        n_rows=rows.n_samples,
        source_digest=rows.digest,
        dtype=dtype,
        rows_per_shard=rows_per_shard,
        settings={
            "encoder_spec": encoder.spec,
            **({} if source_record is None else {"source": dict(source_record)}),
        },
        append=append,
    ) as writer:
        pending = writer.pending
        n_shards = writer.plan.n_shards
        n_encoded = sum(stop - start for start, stop in map(writer.plan.shard_range, pending))

        def note(n_rows: int, spent: Mapping[str, float]) -> None:
            seconds.update(spent)
            progress(n_rows, spent)

        for shard in _written(rows, encoder, writer, n_batch, n_threads, note, on_failed):
            timings.update(shard.timings)
        written = writer.finish().generation_at(writer.location)
    failures = written.failures()
    wall, work = time.perf_counter() - began, sum(seconds.values())
    decoding = encoder.identity.preprocessing.get("decoding", "full")
    return IngestReport(
        store=str(path),
        split=split,
        encoder=encoder.spec,
        device=encoder.device,
        first_row=written.first_row,
        n_rows=rows.n_samples,
        n_failed=sum(failures.values()),
        failures=failures,
        n_shards=n_shards,
        resumed_shards=n_shards - len(pending),
        n_encoded=n_encoded,
        seconds=wall,
        images_per_second=n_encoded / wall,
        shares={stage: spent / work if work else 0.0 for stage, spent in seconds.items()},
        usage=usage_of({**timings, "store": seconds["write"]}, decoding),
        batch_size=n_batch,
        n_workers=n_threads,
        reasons={
            "batch_size": f"auto, for {encoder.spec.partition(':')[0]} on {encoder.device}"
            if batch_size == "auto"
            else "as asked",
            "n_workers": "auto, one a core" if n_workers == "auto" else "as asked",
        },
    )


class _Shard:
    """The rows of one shard, gathered batch by batch."""

    def __init__(self, number: int, start: int, stop: int, n_features: int) -> None:
        self.number, self.start, self.stop = number, start, stop
        self.X = np.empty((stop - start, n_features), np.float32)
        self.status = np.empty(stop - start, np.uint8)
        self.errors: list[str | None] = []
        self.timings: Counter[str] = Counter()

    def add(self, batch: EncodedBatch) -> None:
        at = slice(batch.start - self.start, batch.start - self.start + len(batch.X))
        self.X[at], self.status[at] = batch.X, batch.status
        self.errors += batch.errors
        self.timings.update(batch.seconds)


def _written(
    source: ImageSource,
    encoder: Encoder,
    writer: SplitWriter,
    batch_size: int,
    n_workers: int,
    progress: Progress,
    on_failed: Callable[[int], None],
) -> Iterator[_Shard]:
    """Write every pending shard while the next is encoded; yield each once its writing has begun."""

    def write(shard: _Shard) -> float:
        began = time.perf_counter()
        writer.write_shard(
            shard.number,
            embeddings=shard.X,
            labels=source.labels[shard.start : shard.stop],
            status=shard.status,
            keys=[source.key(i) for i in range(shard.start, shard.stop)],
            errors=shard.errors,
            timings=shard.timings,
        )
        return time.perf_counter() - began

    knows_missing = isinstance(source, LabelledSource) and source.knows_missing
    running: Future[float] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="ltstore-write") as pool:
        for shard in _shards(source, encoder, writer, batch_size, n_workers, progress, on_failed):
            if running is not None:
                progress(0, {"write": running.result()})
            by_chance = shard.stop - shard.start < _MOST_MISSING_BY_CHANCE and writer.plan.n_shards > 1
            if (shard.status == RowStatus.MISSING).all() and not (by_chance or knows_missing):
                raise none_there(source, shard.start, shard.stop)
            running = pool.submit(write, shard)
            yield shard
        if running is not None:
            progress(0, {"write": running.result()})


def _shards(
    source: ImageSource,
    encoder: Encoder,
    writer: SplitWriter,
    batch_size: int,
    n_workers: int,
    progress: Progress,
    on_failed: Callable[[int], None],
) -> Iterator[_Shard]:
    """Yield each pending shard, encoded; one stream of batches, so decoding runs on across shards."""
    ranges = [(shard, *writer.plan.shard_range(shard)) for shard in writer.pending]
    spans = [span for _, start, stop in ranges for span in batch_spans(start, stop, batch_size)]
    batches = encoded_spans(source, encoder, spans, n_workers, progress)
    began = time.perf_counter()
    try:
        for number, start, stop in ranges:
            shard = _Shard(number, start, stop, encoder.identity.n_features)
            for _ in batch_spans(start, stop, batch_size):
                batch = next(batches)
                shard.add(batch)
                if n_failed := int((batch.status != RowStatus.OK).sum()):
                    on_failed(n_failed)
            wall = time.perf_counter() - began
            began += wall
            shard.timings.update({"wall": wall, "threads": n_workers * wall})
            yield shard
    finally:
        batches.close()


def _check_split(split: str, dtype: str) -> None:
    # before anything is created; the store checks it again
    if validate_name(split, "split") in RESERVED_NAMES:
        raise ConfigError(f"a split cannot be named {split!r}: the store keeps its artefacts there")
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"dtype must be auto or one of {', '.join(DTYPES)}, found {dtype!r}")
