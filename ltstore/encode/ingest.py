"""A source through an encoder into a split of a store: shards are written while the next ones are encoded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ltstore.cores import check_positive, resolve_n_workers
from ltstore.encode.pipeline import STAGES, resolve_batch_size
from ltstore.encode.pixels import NativePixels
from ltstore.encode.shards import EncodedShard, encoded_shards
from ltstore.encode.usage import Usage, usage_of
from ltstore.encode.workers import write_shared
from ltstore.engine import Engine
from ltstore.errors import ConfigError, PlanMismatchError
from ltstore.sources import check_present, ordered, relabelled
from ltstore.storage import Place, open_location
from ltstore.store import SplitWriter, Store, is_store, open_or_create_store, open_store
from ltstore.store.format import DTYPES, RESERVED_NAMES, validate_name
from ltstore.types import Encoder, ImageSource, Progress, no_progress


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
        As resolved; `n_workers` are the threads that decode, of each worker where there is an engine.
    reasons : dict of str to str
        Why "batch_size" and "n_workers" are what they are.
    engine : dict
        Kind and size of the engine, and "restarts", how many of its workers were lost; empty without one.
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
    engine: dict[str, Any]

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
    order: str = "source",
    seed: int = 0,
    source_record: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
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
        As in `iter_encoded`. Batches never cross a shard, so a resumed run forms the same ones. With an engine,
        `n_workers` is of each worker, and "auto" one thread for each of its cores.
    dtype, rows_per_shard, append
        As in `ltstore.store.Store.begin_split`.
    class_names : sequence of str, optional
        Classes of a new store; default the source's. An existing store must have these.
    order : {"source", "shuffled"}
        Rows as the source has them, or in a random order that is kept with the split: see
        `ltstore.sources.ShuffledSource`. Keys lead back to the source in both.
    seed : int
        Of the random order.
    source_record : mapping, optional
        What opens the source again (`ltstore.sources.source_record`): kept in the split's settings, for a repair.
    engine : Engine, optional
        Workers that encode and write a shard at a time, each with an encoder of its own, while this process holds the
        lock and records what they wrote; the same bytes as without. A worker that is lost is replaced, and its shard
        done again. Source and store must be there for all of them under the same path or URL.
    progress : callable
        Called after every batch, and with 0 rows after a shard has been written; with an engine, after every shard.
    on_failed : callable
        Called with the number of rows of a batch (or shard) that have no embedding, where there are some.

    Raises
    ------
    EncoderMismatchError
        The store holds embeddings of another identity: names the differences.
    LabelError
        The source has a class that the store has not.
    SourceError
        Not one image of the source, or of a whole shard, is there (a wrong root, a lost disk): nothing is written
        of them, and the same call goes on once they are back.
    PlanMismatchError
        The split was begun, or has these rows already, in another order; otherwise as in `ltstore.store`.
    StoreBusyError, StoreWriteError
        As in `ltstore.store`.
    WorkerLostError
        A worker of the engine was lost more often than it is replaced.

    Notes
    -----
    Memory: two shards of float32 rows, with "auto" at most 256 MiB each, and three batches of inputs; of a worker, one
    shard. An error or Ctrl-C leaves whole shards; workers end the shards that they are at before.
    """
    began = time.perf_counter()
    # before anything is created
    n_threads = engine.worker_cores if engine and n_workers == "auto" else resolve_n_workers(n_workers)
    if batch_size != "auto":
        check_positive(batch_size, "batch_size")
    _check_split(split, dtype)
    arranged = ordered(source, order, seed)
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
    rows = relabelled(arranged, names)
    store = open_or_create_store(path, encoder=encoder.identity, class_names=names)
    if store.class_names != names:  # made by another process in this moment
        rows = relabelled(arranged, store.class_names)
    shuffling: dict[str, Any] = {}
    if order != "source":
        in_source_order = relabelled(source, store.class_names).digest
        shuffling = {"order": order, "seed": seed, "source_order_digest": in_source_order}
    if append:
        _check_order_there(store, split, rows.digest, shuffling)
    n_batch = resolve_batch_size(batch_size, encoder)
    timings: Counter[str] = Counter()

    def note(n_rows: int, spent: Mapping[str, float]) -> None:
        timings.update(spent)
        progress(n_rows, {stage: spent[stage] for stage in STAGES if stage in spent})

    with store.begin_split(
        split,
        n_rows=rows.n_samples,
        source_digest=rows.digest,
        dtype=dtype,
        rows_per_shard=rows_per_shard,
        settings={
            "encoder_spec": encoder.spec,
            **shuffling,
            **({} if source_record is None else {"source": dict(source_record)}),
        },
        append=append,
    ) as writer:
        pending = writer.pending
        n_shards = writer.plan.n_shards
        n_encoded = sum(stop - start for start, stop in map(writer.plan.shard_range, pending))
        done_by: dict[str, Any] = {}
        if engine is None:
            _write_pending(rows, encoder, writer, n_batch, n_threads, note, on_failed)
        else:
            done_by = write_shared(engine, rows, encoder, writer, n_batch, n_threads, note, on_failed)
        written = writer.finish().generation_at(writer.location)
    failures = written.failures()
    wall, work = time.perf_counter() - began, sum(timings[stage] for stage in STAGES)
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
        shares={stage: timings[stage] / work if work else 0.0 for stage in STAGES},
        usage=usage_of(
            {**timings, "store": timings["write"]}, encoder.identity.preprocessing.get("decoding", "full")
        ),
        batch_size=n_batch,
        n_workers=n_threads,
        reasons={
            "batch_size": f"auto, for {encoder.spec.partition(':')[0]} on {encoder.device}"
            if batch_size == "auto"
            else "as asked",
            "n_workers": "auto, one a core" if n_workers == "auto" else "as asked",
        },
        engine=done_by,
    )


def _write_pending(
    source: ImageSource,
    encoder: Encoder,
    writer: SplitWriter,
    batch_size: int,
    n_workers: int,
    note: Progress,
    on_failed: Callable[[int], None],
) -> None:
    def write(shard: EncodedShard) -> float:
        began = time.perf_counter()
        writer.write_shard(shard.number, **shard.columns(source))
        return time.perf_counter() - began

    running: Future[float] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="ltstore-write") as pool:
        shards = encoded_shards(
            source, encoder, writer.plan, writer.pending, batch_size, n_workers, note, on_failed
        )
        for shard in shards:
            if running is not None:
                note(0, {"write": running.result()})
            running = pool.submit(write, shard)
        if running is not None:
            note(0, {"write": running.result()})


def _check_split(split: str, dtype: str) -> None:
    # before anything is created; the store checks it again
    if validate_name(split, "split") in RESERVED_NAMES:
        raise ConfigError(f"a split cannot be named {split!r}: the store keeps its artefacts there")
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"dtype must be auto or one of {', '.join(DTYPES)}, found {dtype!r}")


def _check_order_there(store: Store, split: str, digest: str, shuffling: Mapping[str, Any]) -> None:
    """Raise PlanMismatchError where the split has the rows already in another order: they would be added once more."""
    source_order_digest = shuffling.get("source_order_digest", digest)
    for generation in store.split(split, allow_incomplete=True).generations if split in store.splits else ():
        record = generation.record
        there = record.settings.get("source_order_digest", record.source_digest)
        if there == source_order_digest and record.source_digest != digest:
            how = f"order {record.settings.get('order', 'source')}, seed {record.settings.get('seed', 'none')}"
            raise PlanMismatchError(
                f"{split} has these rows already ({how}): leave them out, or name that order"
            )
