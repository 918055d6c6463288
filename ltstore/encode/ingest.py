"""A source through an encoder into a split of a store: shards are written while the next ones are encoded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from ltstore.cores import check_positive, resolve_n_workers
from ltstore.encode.ingest_report import IngestReport
from ltstore.encode.pipeline import STAGES, resolve_batch_size
from ltstore.encode.pixels import NativePixels
from ltstore.encode.shards import EncodedShard, encoded_shards, lacking, parts_of
from ltstore.encode.usage import usage_of
from ltstore.encode.workers import write_shared
from ltstore.engine import Engine
from ltstore.errors import ConfigError, PlanMismatchError
from ltstore.sources import check_present, ordered, relabelled
from ltstore.storage import Place, open_location
from ltstore.store import SplitWriter, Store, is_store, open_or_create_store, open_store
from ltstore.store.format import DTYPES, RESERVED_NAMES, validate_name
from ltstore.types import Encoder, ImageSource, Progress, no_progress


def ingest(
    source: ImageSource,
    encoder: Encoder,
    store_path: Place,
    split: str,
    *,
    beside: Sequence[Place] = (),
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
    beside : sequence of paths, URLs or Locations
        Of an encoder that gives several kinds of features (its `parts`), stores of those after the first: each
        gets a split of the same rows and shards. A shard is written to one store after another; what a stopped
        run has left out of any is encoded again, and written there alone.
    batch_size, n_workers : int or "auto"
        As in `iter_encoded`. Batches never cross a shard, so a resumed run forms the same ones. With an engine,
        `n_workers` is of each worker, and "auto" one thread for each of its cores.
    dtype, rows_per_shard, append
        As in `ltstore.store.Store.begin_split`.
    class_names : sequence of str, optional
        Classes of a new store; default the source's. An existing store must have these, and all stores the same.
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
    ConfigError
        Not one store for each kind of features, or stores of different classes.
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
    Memory: two shards of float32 rows, with "auto" at most 256 MiB each (of the first kind of features), and three
    batches of inputs; of a worker, one shard. An error or Ctrl-C leaves whole shards; workers end the shards that they
    are at before.
    """
    began = time.perf_counter()
    # before anything is created
    n_threads = engine.worker_cores if engine and n_workers == "auto" else resolve_n_workers(n_workers)
    if batch_size != "auto":
        check_positive(batch_size, "batch_size")
    _check_split(split, dtype)
    arranged = ordered(source, order, seed)
    places = [open_location(place) for place in (store_path, *beside)]
    existing = [open_store(place) if is_store(place) else None for place in places]
    names = _class_names(existing, class_names)
    check_present(source)
    if isinstance(encoder, NativePixels):
        encoder = encoder.resolve(source, None if existing[0] is None else existing[0].encoder)
    parts = parts_of(encoder)
    if len(parts) != len(places):
        kinds = ", ".join(part.features for part in parts)
        raise ConfigError(f"{encoder.spec} gives features {kinds}: name a store for each, found {len(places)}")
    for store, part in zip(existing, parts, strict=True):
        if store is not None:
            store.require_encoder(part)
    stores = [
        open_or_create_store(place, encoder=part, class_names=source.class_names if names is None else names)
        for place, part in zip(places, parts, strict=True)
    ]
    _class_names(stores)  # another process may have made one in this moment
    rows = relabelled(arranged, stores[0].class_names)
    shuffling: dict[str, Any] = {}
    if order != "source":
        in_source_order = relabelled(source, stores[0].class_names).digest
        shuffling = {"order": order, "seed": seed, "source_order_digest": in_source_order}
    if append:
        for store in stores:
            _check_order_there(store, split, rows.digest, shuffling)
    n_batch = resolve_batch_size(batch_size, encoder)
    timings: Counter[str] = Counter()

    def note(n_rows: int, spent: Mapping[str, float]) -> None:
        timings.update(spent)
        progress(n_rows, {stage: spent[stage] for stage in STAGES if stage in spent})

    settings = {
        "encoder_spec": encoder.spec,
        **shuffling,
        **({} if source_record is None else {"source": dict(source_record)}),
    }
    with ExitStack() as stack:
        writers: list[SplitWriter] = []
        for store in stores:
            begun = store.begin_split(
                split,
                n_rows=rows.n_samples,
                source_digest=rows.digest,
                dtype=dtype,
                rows_per_shard=writers[0].plan.rows_per_shard if writers else rows_per_shard,
                settings=settings,
                append=append,
            )
            writers.append(stack.enter_context(begun))
        plan = writers[0].plan
        resumed = [plan.n_shards - len(writer.pending) for writer in writers]
        n_encoded = sum(stop - start for start, stop in map(plan.shard_range, lacking(writers)))
        done_by: dict[str, Any] = {}
        if engine is None:
            _write_pending(rows, encoder, writers, n_batch, n_threads, note, on_failed)
        else:
            done_by = write_shared(engine, rows, encoder, writers, n_batch, n_threads, note, on_failed)
        written = [writer.finish().generation_at(writer.location) for writer in writers]
    wall, work = time.perf_counter() - began, sum(timings[stage] for stage in STAGES)
    reports = [
        IngestReport(
            store=str(place),
            split=split,
            encoder=encoder.spec,
            device=encoder.device,
            first_row=each.first_row,
            n_rows=rows.n_samples,
            failures=(failures := each.failures()),
            n_failed=sum(failures.values()),
            n_shards=plan.n_shards,
            resumed_shards=n_resumed,
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
        for place, each, n_resumed in zip(places, written, resumed, strict=True)
    ]
    return replace(reports[0], beside=tuple(reports[1:]))


def _write_pending(
    source: ImageSource,
    encoder: Encoder,
    writers: Sequence[SplitWriter],
    batch_size: int,
    n_workers: int,
    note: Progress,
    on_failed: Callable[[int], None],
) -> None:
    pending = lacking(writers)

    def write(shard: EncodedShard) -> float:
        began = time.perf_counter()
        columns = shard.columns(source)
        for place in pending[shard.number]:
            writers[place].write_shard(shard.number, **columns[place])
        return time.perf_counter() - began

    running: Future[float] | None = None
    encoding = encoded_shards(
        source, encoder, writers[0].plan, [*pending], batch_size, n_workers, note, on_failed
    )
    with ThreadPoolExecutor(1, thread_name_prefix="ltstore-write") as pool, closing(encoding) as shards:
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


def _class_names(
    stores: Iterable[Store | None], class_names: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """Return the one list of classes that is asked for and that stores have, None where nothing says any."""
    there = {str(store.location): store.class_names for store in stores if store is not None}
    found = {*there.values()} if class_names is None else {*there.values(), tuple(class_names)}
    if len(found) > 1:
        where = " and ".join(there)
        if class_names is None:
            raise ConfigError(f"{where} have different classes: use a new store beside the first one")
        raise ConfigError(f"class_names differ from the classes of {where}: leave them out, or use a new store")
    return next(iter(found), None)


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
