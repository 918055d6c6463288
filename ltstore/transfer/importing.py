"""Embeddings that exist already into a split of a store, bit for bit, in shards that a stopped run resumes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltstore.engine import Engine
from ltstore.errors import ConfigError, DataError, SourceError
from ltstore.sources.listing import read_class_names
from ltstore.sources.record import source_record
from ltstore.storage import Place, open_location
from ltstore.store import (
    ShardPlan,
    ShardWriter,
    SplitWriter,
    Store,
    is_store,
    open_or_create_store,
    open_store,
)
from ltstore.store.format import CommitRecord
from ltstore.transfer.columns import resolve_labels
from ltstore.transfer.digest import source_digest
from ltstore.transfer.layouts import Foreign, Wanted, open_foreign
from ltstore.transfer.parts import JoinedParts
from ltstore.types import UNLABELLED, EncoderIdentity, IntArray, Progress, no_progress

UNIT_NORM_TOLERANCE = 0.01  # float16 of a few thousand features stays well inside
_CHECKED_ROWS = 256
_WRITERS = 4  # SHA-256 and the copy keep two cores busy while the others wait for the disk


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    store, split, source, format, array : str
    first_row : int
        Row id of the first imported row: 0, or where rows were appended the rows there were before.
    n_rows, n_features, n_parts : int
    dtype, dtype_reason : str
        As stored, and why.
    n_failed, failures : int, dict of str to int
        Rows whose embedding was NaN, infinite or too large, kept without one.
    n_zero : int
        Rows that are all zeros.
    n_labelled, n_classes : int
    labels_from, keys_from : str
        Where labels and keys were found; "" where rows have none (keys are then FILE#ROW).
    ignored : list of str
        Arrays and columns that were there and were not taken.
    encoder : dict
        The feature identity.
    n_shards, resumed_shards, n_written : int
        Shards, those that an earlier run had written, and the rows that this run wrote.
    n_bytes : int
        Of embeddings, written in this run.
    seconds, bytes_per_second : float
    engine : dict
        Kind and size of the engine, and "restarts", how many of its workers were lost; empty without one.
    """

    store: str
    split: str
    source: str
    format: str
    array: str
    first_row: int
    n_rows: int
    n_features: int
    n_parts: int
    dtype: str
    dtype_reason: str
    n_failed: int
    failures: dict[str, int]
    n_zero: int
    n_labelled: int
    n_classes: int
    labels_from: str
    keys_from: str
    ignored: list[str]
    encoder: dict[str, Any]
    n_shards: int
    resumed_shards: int
    n_written: int
    n_bytes: int
    seconds: float
    bytes_per_second: float
    engine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)


def import_embeddings(
    source: str | Path,
    store_path: Place,
    split: str,
    *,
    format: str = "auto",  # noqa: A002 - the word after --format
    array: str | None = None,
    labels: str | Path | None = None,
    keys: str | Path | None = None,
    label_array: str | None = None,
    key_array: str | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    model: str | None = None,
    weights: str | None = None,
    normalized: bool | None = None,
    dtype: str = "auto",
    rows_per_shard: int | str = "auto",
    append: bool = False,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> ImportReport:
    """Import embeddings into a split; the same call again takes up what a stopped one left.

    Parameters
    ----------
    source : path
        A file, or a directory of parts, which are joined in numeric order.
    store_path : path, URL or Location
        Created where there is nothing.
    split : str
    format : {"auto", "npy", "npz", "parquet", "clip-retrieval", "datacomp", "safetensors"}
    array : str, optional
        Array, column or tensor of the embeddings, where a file has several.
    labels, keys : path, optional
        `.npy`, Parquet, or a text file with one a line. Labels are positions in the class names, or names.
    label_array, key_array : str, optional
        Array or column of labels and keys.
    class_names : sequence of str, or path of a text file with one a line, optional
        Default: the store's, else those of the export's record, else the names found, sorted, else "0", "1", ...
    model, weights : str, optional
        What made the embeddings; default: the store's, else the export record's, else "unknown" and "".
    normalized : bool, optional
        Rows have unit norm already; looked at in the first rows of every part. Default as for `model`, else False.
    dtype : {"auto", "float16", "float32"}
        "auto" keeps float16 and float32, and stores float64 as float32.
    rows_per_shard, append
        As in `ltstore.store.Store.begin_split`.
    engine : Engine, optional
        Workers that read and write a shard at a time, while this process records them; the same bytes as without. They
        must see source and store under the same path or URL.
    progress : callable
        Called after every shard.

    Returns
    -------
    ImportReport

    Raises
    ------
    SourceNotFoundError, SourceError, DataError
        The source is not there, is damaged or ambiguous, or its files do not agree: names the file.
    LabelError
        A label outside the classes: names the row.
    EncoderMismatchError
        The store holds embeddings of another identity: names the differences.
    PlanMismatchError
        The split was begun from other files or with other settings.
    ConfigError, StoreBusyError, StoreWriteError
        As in `ltstore.store`.
    WorkerLostError
        A worker of the engine was lost more often than it is replaced.

    Notes
    -----
    Rows with NaN, infinity, or a magnitude that the dtype does not hold keep their place as failed rows.
    Memory: labels, keys, and at most five shards; `.npy` and plain `.npz` are written straight from the mapped file.
    Workers have labels, keys and a shard each; a compressed `.npz` is decompressed from its beginning for each shard.
    """
    began = time.perf_counter()
    how: dict[str, Any] = {
        "array": array,
        "labels": labels,
        "keys": keys,
        "label_array": label_array,
        "key_array": key_array,
    }
    found = _open(source, format, **how)
    path = open_location(store_path)
    existing = open_store(path) if is_store(path) else None
    y, names = _labels(found, existing, class_names)
    identity = _identity(found, existing, model, weights, normalized)
    if existing is not None:
        existing.require_encoder(identity)
    if identity.normalized:
        _check_unit_norm(found.rows)
    if append and dtype == "auto" and existing is not None and split in existing.splits:
        dtype = existing.split(split, allow_incomplete=True).dtype
    stored, reason = resolve_dtype(found.rows.dtype, dtype)
    digest = _digest(found, y)
    store = open_or_create_store(path, encoder=identity, class_names=names)
    if store.class_names != names:
        raise ConfigError(f"{path} has just been made by another process with other classes: import again")
    with store.begin_split(
        split,
        n_rows=found.rows.n_rows,
        source_digest=digest,
        dtype=stored,
        rows_per_shard=rows_per_shard,
        settings={
            "import": {"format": found.format, "array": found.array},
            "source": source_record(Path(source).absolute(), format=found.format, **how),
        },
        append=append,
    ) as writer:
        plan, pending = writer.plan, writer.pending
        n_written = sum(stop - start for start, stop in map(plan.shard_range, pending))
        done_by: dict[str, Any] = {}
        if engine is None:
            _write_pending(found, y, writer, progress)
        else:
            opened = {"source": Path(source).absolute(), "layout": found.format, **how}
            done_by = _write_shared(engine, _Sent(opened, y, digest, writer.shards, plan), writer, progress)
        written = writer.finish().generation_at(writer.location)
    seconds = time.perf_counter() - began
    n_bytes = n_written * found.rows.n_features * np.dtype(stored).itemsize
    failures = written.failures()
    return ImportReport(
        store=str(path),
        split=split,
        source=str(source),
        format=found.format,
        array=found.array,
        first_row=written.first_row,
        n_rows=written.n_rows,
        n_features=found.rows.n_features,
        n_parts=len(found.rows.parts),
        dtype=stored,
        dtype_reason=reason,
        n_failed=sum(failures.values()),
        failures=failures,
        n_zero=written.zero_norm,
        n_labelled=int((y != UNLABELLED).sum()),
        n_classes=len(store.class_names),
        labels_from=found.labels_from,
        keys_from=found.keys_from,
        ignored=found.ignored,
        encoder=identity.to_json(),
        n_shards=plan.n_shards,
        resumed_shards=plan.n_shards - len(pending),
        n_written=n_written,
        n_bytes=n_bytes,
        seconds=seconds,
        bytes_per_second=n_bytes / seconds,
        engine=done_by,
    )


def import_digest(
    source: str | Path,
    class_names: Sequence[str],
    *,
    format: str = "auto",  # noqa: A002 - as in import_embeddings
    array: str | None = None,
    labels: str | Path | None = None,
    keys: str | Path | None = None,
    label_array: str | None = None,
    key_array: str | None = None,
) -> str:
    """Return the source digest that `import_embeddings` would give a split of these files and classes."""
    found = _open(
        source, format, array=array, labels=labels, keys=keys, label_array=label_array, key_array=key_array
    )
    y, _ = resolve_labels(found.labels, found.rows.n_rows, class_names, found.labels_from)
    return _digest(found, y)


def _open(
    source: str | Path, layout: str, *, labels: str | Path | None, keys: str | Path | None, **names: str | None
) -> Foreign:
    wanted = Wanted(
        labels=None if labels is None else Path(labels), keys=None if keys is None else Path(keys), **names
    )
    return open_foreign(Path(source), layout, wanted)


def _digest(found: Foreign, labels: IntArray) -> str:
    facts = [found.format, found.array, str(found.rows.dtype), *(str(part.n_rows) for part in found.rows.parts)]
    return source_digest(facts, found.files, labels)


def resolve_dtype(found: np.dtype[Any], wanted: str) -> tuple[str, str]:
    """Return the dtype to store and the reason for it; ConfigError where `wanted` is none of ours."""
    if wanted not in ("auto", "float16", "float32"):
        raise ConfigError(f"dtype must be auto, float16 or float32, found {wanted!r}")
    if wanted == "auto":
        if found.name != "float64":
            return found.name, "as found"
        return "float32", "float64 was rounded: a store holds float16 or float32"
    if wanted == found.name:
        return wanted, "as found"
    return (
        wanted,
        f"{found.name} was {'widened' if found.itemsize < np.dtype(wanted).itemsize else 'rounded'}, as asked",
    )


def _labels(
    found: Foreign, existing: Store | None, class_names: Sequence[str] | str | Path | None
) -> tuple[IntArray, tuple[str, ...]]:
    names: Sequence[str] | None
    names = read_class_names(class_names) if isinstance(class_names, str | Path) else class_names
    if names is None and found.record is not None and isinstance(found.labels, np.ndarray):
        names = found.record.class_names  # what these numbers mean, whatever the store holds
    if existing is not None:
        if names is not None and tuple(names) != existing.class_names:
            raise ConfigError(
                f"the class names of the source ({len(names)}) differ from those of {existing.location} "
                f"({len(existing.class_names)}): use another store, or label by name"
            )
        names = existing.class_names
    return resolve_labels(found.labels, found.rows.n_rows, names, found.labels_from)


def _identity(
    found: Foreign, existing: Store | None, model: str | None, weights: str | None, normalized: bool | None
) -> EncoderIdentity:
    known = existing.encoder if existing is not None else found.record
    return EncoderIdentity(
        encoder="import",
        model=model if model is not None else known.model if known else "unknown",
        weights=weights if weights is not None else known.weights if known else "",
        n_features=found.rows.n_features,
        normalized=normalized if normalized is not None else known.normalized if known else False,
    )


def _check_unit_norm(rows: JoinedParts) -> None:
    """Look at the first rows of every part; those without a finite embedding, or of zeros, say nothing."""
    for part in rows.parts:
        X = np.asarray(part.read(0, min(part.n_rows, _CHECKED_ROWS)), np.float64)
        norms = np.sqrt(np.vecdot(X, X))
        off = np.isfinite(norms) & (norms > 0) & (np.abs(norms - 1) > UNIT_NORM_TOLERANCE)
        if off.any():
            row = int(np.argmax(off))
            raise DataError(
                f"row {row} of {part.where} has norm {norms[row]:.6g}, but rows are said to have unit norm: "
                "import them as not normalized"
            )


def _write_pending(found: Foreign, labels: IntArray, writer: SplitWriter, progress: Progress) -> None:
    """Read shards in order in this thread, which streamed parts need; write them in others."""
    plan = writer.plan

    def write(shard: int, X: NDArray[Any], spent: float) -> tuple[int, dict[str, float]]:
        began = time.perf_counter()
        writer.write_shard(shard, **_columns(found, labels, *plan.shard_range(shard), X, spent))
        return len(X), {"read": spent, "write": time.perf_counter() - began}

    running: deque[Future[tuple[int, dict[str, float]]]] = deque()
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="ltstore-import") as pool:
        for shard in writer.pending:
            began = time.perf_counter()
            X = found.rows.read(*plan.shard_range(shard))
            running.append(pool.submit(write, shard, X, time.perf_counter() - began))
            del X
            if len(running) >= _WRITERS:
                progress(*running.popleft().result())
        while running:
            progress(*running.popleft().result())


class _Sent(NamedTuple):
    """What workers are sent once; the files they open themselves."""

    how: Mapping[str, Any]
    labels: IntArray
    digest: str
    files: ShardWriter
    plan: ShardPlan


class _Share(NamedTuple):
    """What a worker keeps."""

    found: Foreign
    sent: _Sent


def _write_shared(engine: Engine, sent: _Sent, writer: SplitWriter, progress: Progress) -> dict[str, Any]:
    """Let workers read and write shards, record them here, and return what a report says of the workers."""
    with (
        engine.start(_take_share, sent) as crew,
        closing(crew.iter_items(_write_shard, writer.pending)) as written,
    ):
        for commit, seconds in written:
            writer.commit(commit)
            progress(commit.stop - commit.start, seconds)
        return {**engine.describe(), "restarts": crew.restarts}


def _take_share(sent: _Sent, number: int, n_workers: int) -> _Share:
    found = _open(**sent.how)
    if _digest(found, sent.labels) != sent.digest:
        raise SourceError(
            f"worker {number + 1} of {n_workers} finds other files at {sent.how['source']}: all machines must see the "
            "same ones under that path"
        )
    return _Share(found, sent)


def _write_shard(share: _Share, shard: int) -> tuple[CommitRecord, dict[str, float]]:
    found, sent = share
    start, stop = sent.plan.shard_range(shard)
    began = time.perf_counter()
    X = found.rows.read(start, stop)
    read = time.perf_counter() - began
    commit = sent.files.write(shard, **_columns(found, sent.labels, start, stop, X, read))
    return commit, {"read": read, "write": time.perf_counter() - began - read}


def _columns(
    found: Foreign, labels: IntArray, start: int, stop: int, X: NDArray[Any], spent: float
) -> dict[str, Any]:
    return {
        "embeddings": X,
        "labels": labels[start:stop],
        "status": np.zeros(stop - start, np.uint8),
        "keys": _keys(found, start, stop),
        "errors": [None] * (stop - start),
        "timings": {"read": spent},
    }


def _keys(found: Foreign, start: int, stop: int) -> Any:
    """Return a pyarrow array of keys, built by Arrow: making Python strings would hold up the other writers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if found.keys is not None:
        return _one_array(found.keys.slice(start, stop - start))
    pieces = []
    for part, first, last in found.rows.spans(start, stop):
        name = part.path.name.encode("utf-8", "backslashreplace").decode()
        numbers = pa.array(np.arange(first, last)).cast(pa.string())
        pieces.append(pc.binary_join_element_wise(pa.scalar(name), numbers, "#"))
    return _one_array(pa.chunked_array(pieces, pa.string()))


def _one_array(values: Any) -> Any:
    """Return one array of a chunked one: the bytes of a part depend on how its columns are cut."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.cast(pa.string())
