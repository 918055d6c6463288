"""Writing a split, shard by shard, so that a killed run leaves whole shards and the same run resumes.

Order within a shard: embeddings, labels, status, rows, and the commit record last; each is written under a
temporary name, fsynced and renamed, and its directory fsynced, before the next begins.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ltstore.errors import (
    DataError,
    IncompleteStoreError,
    LabelError,
    PlanMismatchError,
    StoreExistsError,
    StoreFormatError,
    StoreWriteError,
)
from ltstore.kernels.rows import copy_rows
from ltstore.storage import Location, WriterLock, write_json
from ltstore.store.format import (
    ARRAYS,
    COMPLETE,
    GROUP_FILE,
    CommitRecord,
    RootRecord,
    SplitRecord,
    group_document,
    read_attribute,
)
from ltstore.store.generation import commit_location, commits_digest, read_commits, relink, split_of
from ltstore.store.held import read_held
from ltstore.store.parts import encode_part, part_location
from ltstore.store.plan import CHUNK_ROWS, ShardPlan
from ltstore.store.quarantine import shard_entries
from ltstore.store.reader import shard_location
from ltstore.store.shard import as_bytes, encode_shard
from ltstore.store.split import Split
from ltstore.types import UNLABELLED, ByteArray, FloatArray, IntArray, RowStatus

# Settings that say where things lay, not what they were: a resumed run may find them elsewhere.
PLACES = ("encoder_spec", "source")


class SplitWriter:
    """Writes the shards of one generation of a split, in any order. Made by `Store.begin_split`.

    A context manager: leaving it gives the lock back and finishes nothing by itself. `write_shard` may be
    called from several threads at once, each with a shard of its own.
    """

    def __init__(
        self,
        location: Location,
        root: RootRecord,
        wanted: SplitRecord,
        auto_plan: bool,
        lock: WriterLock,
        finished: Callable[[], Split],
    ) -> None:
        self._location = location
        self._root = root
        self._lock = lock
        self._finished = finished
        location.make_directory()
        self._record = self._begin(wanted, auto_plan)
        self._done = set(read_commits(location, self._record.plan))
        self._quarantined = shard_entries(location)
        self._guard = threading.Lock()

    def _begin(self, wanted: SplitRecord, auto_plan: bool) -> SplitRecord:
        where = self._location / GROUP_FILE
        if where.exists():
            found = SplitRecord.from_json(read_attribute(where), str(where))
            if auto_plan:  # no opinion: keep the plan the split was begun with
                wanted = replace(wanted, rows_per_shard=found.rows_per_shard, chunk_rows=found.chunk_rows)
            if different := differences(found, wanted):
                raise PlanMismatchError(
                    f"{self._location} was begun with another plan ({'; '.join(different)}): "
                    "run it as it was begun, or write to another split"
                )
            return found
        names = (self._location / "commits").child_names()
        if orphans := [name for name in names if name.endswith(".json")]:
            raise StoreFormatError(
                f"{where} is missing, and {len(orphans)} shards were written under it: restore it from a copy, or move "
                f"{self._location} away and write the split again"
            )
        self._create(wanted)
        return wanted

    def _create(self, record: SplitRecord) -> None:
        """Lay out an empty split; its own zarr.json comes last, so a split exists whole or not at all."""
        directories = [self._location / name for name in (*ARRAYS, "rows", "commits")]
        for directory in (*directories, *(self._location / name / "c" for name in ARRAYS)):
            directory.make_directory()
        for name, document in array_documents(record, self._root.encoder.n_features).items():
            write_json(self._location / name / GROUP_FILE, document)
        for directory in (self._location, self._location.parent):
            directory.sync()
        write_json(self._location / GROUP_FILE, group_document(record.to_json()))

    @property
    def plan(self) -> ShardPlan:
        """Which rows go into which shard."""
        return self._record.plan

    @property
    def location(self) -> Location:
        """Where it writes: the place of a generation of the split."""
        return self._location

    @property
    def pending(self) -> tuple[int, ...]:
        """Shards that are not written yet, ascending."""
        return tuple(shard for shard in range(self.plan.n_shards) if shard not in self._done)

    def write_shard(
        self,
        shard: int,
        *,
        embeddings: NDArray[np.floating[Any]],
        labels: ArrayLike,
        status: ArrayLike,
        keys: Sequence[str],
        errors: Sequence[str | None],
        timings: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one shard and its commit record.

        Parameters
        ----------
        shard : int
            One of `pending`.
        embeddings : (n, D) floats
            n is the shard's rows in the plan; not modified. A row with status OK that holds NaN or Inf, or
            does not fit the stored dtype, is stored with status NON_FINITE or OVERFLOW; the embedding of a
            row with any other status is not looked at. Both are stored as zeros.
        labels : (n,) int
            Positions in the class names, UNLABELLED where unknown.
        status : (n,) `RowStatus`
        keys : n str
            Where each row came from.
        errors : n str or None
            Why a row has no embedding.
        timings : mapping of str to seconds, optional
            Kept in the commit record; the only part of a store that differs between equal runs.
        extra : mapping of str to n values, optional
            More columns for the rows' Parquet part, e.g. ``parent_ids`` as an (n, p) array; of a masked array the lists
            have what is not masked.

        Raises
        ------
        DataError
            A column has the wrong length or type. LabelError for a bad label.
        StoreExistsError
            The shard is written already.
        StoreWriteError
            Disk full, no permission, ...: the shard stays pending, and the same call again may succeed.

        Notes
        -----
        Rows of a shard in quarantine whose stored bytes are whole keep them: what is given here for them is not used.
        """
        began = time.perf_counter()
        start, stop = self.plan.shard_range(shard)
        self._check_lock()
        if shard in self._done:
            raise StoreExistsError(f"shard {shard} of {self._location} is written already")
        n = stop - start
        X = np.asarray(embeddings)
        if X.shape != (n, self._root.encoder.n_features) or X.dtype.kind != "f":
            raise DataError(
                f"embeddings of shard {shard} must be floats of shape {(n, self._root.encoder.n_features)}, "
                f"found {X.dtype} of {X.shape}"
            )
        y = self._labels(labels, n)
        reasons = _statuses(status, n)
        for name, values in (("keys", keys), ("errors", errors)):
            if len(values) != n:
                raise DataError(f"{name} of shard {shard} must be {n} values, found {len(values)}")
        texts = list(errors)
        if shard in self._quarantined:
            held = read_held(self._quarantined[shard], self._record, shard, X.shape[1])
            if held is not None:
                X, reasons, texts = held.merge(X, reasons, texts)
        stored, zero_norm = _stored_rows(X, self._record.dtype, reasons, texts)
        part = encode_part(keys=keys, labels=y, status=reasons, errors=texts, extra=extra or {})
        columns: dict[str, NDArray[Any]] = {"embeddings": stored, "labels": y, "status": reasons}
        files = {}
        for name, column in columns.items():
            target = shard_location(self._location / name, shard, column.ndim)
            target.parent.check_no_link(self._location)
            pieces = encode_shard(column, self.plan.chunk_rows, self.plan.chunks_per_shard)
            files[name] = _write(target, pieces)
            if column.ndim > 1:
                target.parent.parent.sync()  # the shard's own directory is new in it
        files["rows"] = _write(part_location(self._location, shard), [np.frombuffer(part, np.uint8)])
        counts = Counter(RowStatus(value).name for value in reasons[reasons != RowStatus.OK].tolist())
        commit = CommitRecord(
            shard=shard,
            start=start,
            stop=stop,
            files=files,
            failures=dict(sorted(counts.items())),
            zero_norm=zero_norm,
            timings={**{k: float(v) for k, v in (timings or {}).items()}, "store": time.perf_counter() - began},
        )
        self._check_lock()  # a lease can be lost in the meantime
        write_json(commit_location(self._location, shard), commit.to_json())
        with self._guard:
            self._done.add(shard)

    def _check_lock(self) -> None:
        if not self._lock.held:
            raise StoreWriteError(
                f"the writer of {self._location} is closed, or has lost its lock: begin the split again"
            )

    def _labels(self, labels: ArrayLike, n: int) -> IntArray:
        y = np.asarray(labels)
        if y.shape != (n,) or (y.dtype.kind not in "iu" and n):
            raise DataError(f"labels must be {n} integers, found {y.dtype} of shape {y.shape}")
        y = y.astype("<i8")
        outside = (y < UNLABELLED) | (y >= len(self._root.class_names))
        if outside.any():
            where = int(np.argmax(outside))
            raise LabelError(
                f"label {y[where]} of row {where} of this shard is outside the store's "
                f"{len(self._root.class_names)} classes"
            )
        return y

    def finish(self) -> Split:
        """Mark the split complete and return it; a complete split is returned as it is.

        Raises
        ------
        IncompleteStoreError
            Shards are still pending.
        """
        if pending := self.pending:
            raise IncompleteStoreError(
                f"{len(pending)} of {self.plan.n_shards} shards of {self._location} are not written, first {pending[0]}"
            )
        if self._record.state != COMPLETE:
            commits = read_commits(self._location, self.plan)
            digest = commits_digest(list(commits.values()))
            self._record = replace(self._record, state=COMPLETE, digest=digest)
            write_json(self._location / GROUP_FILE, group_document(self._record.to_json()))
            relink(split_of(self._location))  # rows after it were appended, if this is a repair
        self.close()
        return self._finished()

    def close(self) -> None:
        """Give the lock back; what is written stays, and the split can be resumed."""
        self._lock.release()

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def array_documents(record: SplitRecord, n_features: int) -> dict[str, dict[str, Any]]:
    """Return the zarr.json of each array of a split, sealed."""
    from ltstore.store.zarr_arrays import array_document

    plan = record.plan
    return {
        name: array_document(
            (plan.n_rows, *row_shape),
            dtype,
            (plan.chunk_rows, *row_shape),
            (plan.rows_per_shard, *row_shape),
        )
        for name, dtype, row_shape in (
            ("embeddings", record.dtype, (n_features,)),
            ("labels", "int64", ()),
            ("status", "uint8", ()),
        )
    }


def differences(found: SplitRecord, wanted: SplitRecord, *, plan: bool = True) -> list[str]:
    """Name what differs between the record on disk and the one asked for, settings one by one.

    Where things lay is left out, and without `plan` also how rows were cut into shards.
    """
    left_out = ("state", "digest", "settings", *(() if plan else ("rows_per_shard", "chunk_rows")))
    there, now = (
        {
            **{k: v for k, v in record.to_json().items() if k not in left_out},
            **{f"settings.{k}": v for k, v in record.settings.items() if k not in PLACES},
        }
        for record in (found, wanted)
    )
    return [
        f"{key}: {there.get(key, 'nothing')} there, {now.get(key, 'nothing')} now"
        for key in dict.fromkeys([*there, *now])
        if key not in there or key not in now or there[key] != now[key]
    ]


def _statuses(status: ArrayLike, n: int) -> ByteArray:
    found = np.asarray(status)
    if found.shape != (n,) or not np.isin(found, list(map(int, RowStatus))).all():
        raise DataError(f"status must be {n} values of RowStatus, found {found.dtype} of shape {found.shape}")
    return found.astype(np.uint8)


def _stored_rows(
    X: NDArray[np.floating[Any]], dtype: str, status: ByteArray, errors: list[str | None]
) -> tuple[NDArray[np.floating[Any]], int]:
    """Return embeddings as stored and how many are all zeros; fills in status and error of bad rows."""
    kind = np.dtype(dtype).newbyteorder("<")
    if X.dtype == np.float32 and kind == np.float16:
        stored = np.empty(X.shape, kind)
        copy_rows(np.ascontiguousarray(X), stored)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            stored = np.ascontiguousarray(X, dtype=kind)
    largest, infinity = _largest_bits(stored)
    for row in np.flatnonzero((largest >= infinity) & (status == RowStatus.OK)).tolist():
        n_bad = int((~np.isfinite(X[row])).sum())
        if n_bad:
            status[row] = RowStatus.NON_FINITE
            errors[row] = f"NaN or Inf in {n_bad} of {X.shape[1]} features"
        else:
            status[row] = RowStatus.OVERFLOW
            errors[row] = f"largest magnitude {float(np.abs(X[row]).max()):.6g} does not fit {dtype}"
    without = status != RowStatus.OK
    if without.any():
        if np.may_share_memory(stored, X):
            stored = stored.copy()
        stored[without] = 0
    return stored, int(((largest == 0) & (status == RowStatus.OK)).sum())


def _largest_bits(X: NDArray[np.floating[Any]]) -> tuple[NDArray[np.unsignedinteger[Any]], int]:
    """Return each row's largest magnitude as the bits of its float, and the bits of infinity.

    Without their sign, floats order as their bits do, and NaN comes after infinity: one pass over integers
    finds NaN, infinity and all-zero rows eight times faster than isfinite and any do on float16.
    """
    words = X.view(f"<u{X.dtype.itemsize}")
    magnitude = words.dtype.type(np.iinfo(words.dtype).max >> 1)
    infinity = int(np.array(np.inf, X.dtype).view(words.dtype))
    largest = np.zeros(len(X), words.dtype)
    for start in range(0, len(X), CHUNK_ROWS):
        block = words[start : start + CHUNK_ROWS]
        largest[start : start + CHUNK_ROWS] = (block & magnitude).max(axis=1)
    return largest, infinity


def _write(location: Location, pieces: Iterable[FloatArray | ByteArray]) -> dict[str, Any]:
    """Write a file atomically, piece by piece; return its size and digest."""
    state, n_bytes = hashlib.sha256(), 0

    def hashed() -> Iterator[memoryview]:
        nonlocal n_bytes
        for piece in pieces:
            data = as_bytes(piece).data
            state.update(data)
            n_bytes += len(data)
            yield data

    location.write(hashed())
    return {"sha256": state.hexdigest(), "n_bytes": n_bytes}
