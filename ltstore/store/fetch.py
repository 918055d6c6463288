"""Reading rows of an array in an object store: chunks are fetched by ranges, checked, and kept for a while."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import ChecksumMismatchError
from ltstore.kernels.rows import copy_rows
from ltstore.storage import Location, ObjectLocation
from ltstore.store.plan import ShardPlan
from ltstore.store.reader import StoredArray, missing
from ltstore.store.shard import CHECKSUM_BYTES, ShardIndex, checksum_holds, index_bytes, read_index
from ltstore.types import ByteArray, IntArray

KEPT_BYTES = 256 << 20
"""Chunks that are kept in memory, of one array."""
KEPT_INDEXES = 1024
FETCHED_AT_ONCE = 32
_WHOLE_BYTES = 1 << 20
_ATTEMPTS = 2
_log = logging.getLogger(__name__)


class FetchedArray(StoredArray):
    """An array in an object store: see `StoredArray`. Every chunk is checked against its checksum when it comes.

    Notes
    -----
    One request for the index of a shard, and one for each run of neighbouring chunks, up to 32 chunks at once; the
    shard of a column is fetched whole where it is no larger than 1 MiB. Memory: 256 MiB of chunks.
    """

    def __init__(self, location: Location, plan: ShardPlan, dtype: str, row_shape: tuple[int, ...]) -> None:
        self._indexes: OrderedDict[int, ShardIndex | None] = OrderedDict()
        self._chunks: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        super().__init__(location, plan, dtype, row_shape)

    def _object(self, shard: int) -> ObjectLocation:
        return cast(ObjectLocation, self._shard_location(shard))

    def _index(self, shard: int) -> ShardIndex | None:
        """Return where the chunks of a shard lie; None where zarr must read it."""
        if not self._raw:
            return None
        with self._lock:
            if shard in self._indexes:
                self._indexes.move_to_end(shard)
                return self._indexes[shard]
        location = self._object(shard)
        n_index = index_bytes(self._plan.chunks_per_shard)
        try:
            end, size = location.read_end(n_index if self._row_shape else max(n_index, _WHOLE_BYTES))
        except FileNotFoundError as err:
            raise missing(location) from err
        index: ShardIndex | None = read_index(end, self._plan.chunks_per_shard, str(location), size)
        n_chunks = self._plan.n_chunks(shard)
        if index is not None and (index.entries[:n_chunks, 1] != self._chunk_bytes + CHECKSUM_BYTES).any():
            _log.warning("%s has chunks of another layout: reading it through zarr, slower", location)
            index = None
        if index is not None and len(end) == size:
            spans = index.entries[:n_chunks].astype(np.int64)
            pieces = {
                chunk: end[offset : offset + count] for chunk, (offset, count) in enumerate(spans.tolist())
            }
            self._keep(
                shard, {chunk: self._rows_of(data) for chunk, data in pieces.items() if checksum_holds(data)}
            )
        with self._lock:
            self._indexes[shard] = index
            while len(self._indexes) > KEPT_INDEXES:
                self._indexes.popitem(last=False)
        return index

    def _rows_of(self, data: ByteArray) -> NDArray[Any]:
        """Return the rows of a chunk, without its checksum."""
        rows = data[:-CHECKSUM_BYTES].view(self._dtype)
        return rows.reshape(self._plan.chunk_rows, *self._row_shape)

    def _keep(self, shard: int, chunks: Mapping[int, NDArray[Any]]) -> None:
        with self._lock:
            for chunk, rows in chunks.items():
                self._chunks[shard, chunk] = rows
                self._chunks.move_to_end((shard, chunk))
            most = max(KEPT_BYTES // self._chunk_bytes, 1)
            while len(self._chunks) > most:
                self._chunks.popitem(last=False)

    def _get(self, shard: int, index: ShardIndex, wanted: Sequence[int]) -> dict[int, NDArray[Any]]:
        """Return chunks of a shard, fetching those that are not kept."""
        with self._lock:
            found = {chunk: self._chunks[shard, chunk] for chunk in wanted if (shard, chunk) in self._chunks}
            for chunk in found:
                self._chunks.move_to_end((shard, chunk))
        absent = [chunk for chunk in wanted if chunk not in found]
        if absent:
            new = self._fetch(shard, index, absent)
            self._keep(shard, new)
            found |= new
        return found

    def _fetch(self, shard: int, index: ShardIndex, wanted: Sequence[int]) -> dict[int, NDArray[Any]]:
        location = self._object(shard)
        found: dict[int, NDArray[Any]] = {}
        for _ in range(_ATTEMPTS):  # a checksum may fail on the way and hold at the next try
            absent = [chunk for chunk in wanted if chunk not in found]
            spans = [(int(offset), int(offset + count)) for offset, count in index.entries[absent]]
            try:
                pieces = location.read_ranges(spans)
            except FileNotFoundError as err:
                raise missing(location) from err
            found |= {
                chunk: self._rows_of(data)
                for chunk, data in zip(absent, pieces, strict=True)
                if checksum_holds(data)
            }
            if len(found) == len(wanted):
                return found
        bad = next(chunk for chunk in wanted if chunk not in found)
        raise ChecksumMismatchError(f"chunk {bad} of {location} does not match its checksum: run verify")

    def _read_of(
        self, shard: int, start: int, stop: int, out: NDArray[Any], *, unit: bool, in_order: bool
    ) -> None:
        index = self._index(shard)
        if index is None:
            copy_rows(self._pipeline(shard, slice(start, stop)), out, unit=unit)
            return
        base, per_chunk = shard * self._plan.rows_per_shard, self._plan.chunk_rows
        first, last = (start - base) // per_chunk, (stop - 1 - base) // per_chunk + 1
        for step in range(first, last, FETCHED_AT_ONCE):
            chunks = self._get(shard, index, range(step, min(step + FETCHED_AT_ONCE, last)))
            for chunk, rows in sorted(chunks.items()):
                at = base + chunk * per_chunk
                low, high = max(start, at), min(stop, at + per_chunk)
                copy_rows(rows[low - at : high - at], out[low - start : high - start], unit=unit)

    def _chunk_of(self, shard: int, start: int, stop: int) -> NDArray[Any]:
        rows = np.empty((stop - start, *self._row_shape), self._dtype)
        self._read_of(shard, start, stop, rows, unit=False, in_order=True)
        return rows

    def _take_of(self, shard: int, row_ids: IntArray, out: NDArray[Any]) -> None:
        index = self._index(shard)
        if index is None:
            np.copyto(out, self._pipeline(shard, row_ids))
            return
        chunk_ids, within = np.divmod(row_ids - shard * self._plan.rows_per_shard, self._plan.chunk_rows)
        wanted = np.unique(chunk_ids).tolist()
        for step in range(0, len(wanted), FETCHED_AT_ONCE):
            for chunk, rows in self._get(shard, index, wanted[step : step + FETCHED_AT_ONCE]).items():
                where = np.flatnonzero(chunk_ids == chunk)
                out[where] = rows[within[where]]

    def check_shard(self, shard: int) -> None:
        """Do nothing: every chunk is checked when it is fetched."""
