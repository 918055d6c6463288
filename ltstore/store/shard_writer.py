"""Writing the files of a shard, each atomically, and what is to be recorded of them."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ltstore.errors import DataError, LabelError
from ltstore.kernels.rows import copy_rows
from ltstore.storage import Location
from ltstore.store.format import CommitRecord, RootRecord, SplitRecord
from ltstore.store.held import read_held
from ltstore.store.parts import encode_part, part_location
from ltstore.store.plan import CHUNK_ROWS
from ltstore.store.quarantine import Entry
from ltstore.store.reader import shard_location
from ltstore.store.shard import as_bytes, encode_shard
from ltstore.types import UNLABELLED, ByteArray, FloatArray, IntArray, RowStatus


class ShardWriter:
    """Writes the files of shards of one generation of a split; made by `SplitWriter`.

    It holds no lock and records nothing, so it may be pickled and work in any process: what it writes is no part of the
    split until the holder of the lock commits it. Equal rows give equal files, whoever writes them, so that a shard
    may be written twice. Several threads may write at once, each a shard of its own.
    """

    def __init__(
        self, location: Location, record: SplitRecord, root: RootRecord, quarantined: Mapping[int, Entry]
    ) -> None:
        self._location = location
        self._record = record
        self._plan = record.plan
        self._root = root
        self._quarantined = quarantined

    def write(
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
    ) -> CommitRecord:
        """Write the files of one shard and return its commit record, which `SplitWriter.commit` is to write.

        Parameters
        ----------
        shard : int
            Of the plan. Files of it that are there are replaced.
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
        StoreWriteError
            Disk full, no permission, ...: the same call again may succeed.

        Notes
        -----
        Rows of a shard in quarantine whose stored bytes are whole keep them: what is given here for them is not used.
        """
        began = time.perf_counter()
        start, stop = self._plan.shard_range(shard)
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
            pieces = encode_shard(column, self._plan.chunk_rows, self._plan.chunks_per_shard)
            files[name] = _write(target, pieces)
            if column.ndim > 1:
                target.parent.parent.sync()  # the shard's own directory is new in it
        files["rows"] = _write(part_location(self._location, shard), [np.frombuffer(part, np.uint8)])
        counts = Counter(RowStatus(value).name for value in reasons[reasons != RowStatus.OK].tolist())
        return CommitRecord(
            shard=shard,
            start=start,
            stop=stop,
            files=files,
            failures=dict(sorted(counts.items())),
            zero_norm=zero_norm,
            timings={**{k: float(v) for k, v in (timings or {}).items()}, "store": time.perf_counter() - began},
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
