"""Reading rows of a stored array: shard files are mapped, and rows copied straight out of them.

Objects that cannot be mapped are read by `fetch`.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import ChecksumMismatchError, StoreFormatError
from ltstore.kernels.rows import RowTable, copy_rows, scale_rows
from ltstore.storage import FileLocation, Location
from ltstore.store.format import GROUP_FILE, read_json, shown
from ltstore.store.pages import IN_ORDER_BYTES, Pages, mapping_of, most_maps
from ltstore.store.plan import ShardPlan
from ltstore.store.shard import CHECKSUM_BYTES, bad_chunks, read_index
from ltstore.types import ByteArray, IntArray

OPEN_MAPS = most_maps()
_log = logging.getLogger(__name__)


def view_file(location: Location) -> ByteArray:
    """Return the bytes of a file that a commit record names, as a read-only (n,) uint8 array."""
    try:
        data = location.view()
    except FileNotFoundError as err:
        raise missing(location) from err
    if not len(data):
        raise StoreFormatError(f"{location} is empty: it was cut short; run verify")
    return data


def still_whole(view: NDArray[Any]) -> bool:
    """Whether the file under a mapped array is as long as it was: to read past its end kills the process."""
    mapped = mapping_of(view)
    return mapped is None or mapped.size() >= len(mapped)


def missing(location: Location) -> StoreFormatError:
    """Return the error of a file that should be there."""
    return StoreFormatError(f"{location} is missing though its shard was written: run verify")


def shard_location(array: Location, shard: int, n_dimensions: int) -> Location:
    """Return the file of a shard (Zarr's default chunk keys: c/SHARD/0 for two dimensions)."""
    location = array / "c" / str(shard)
    return location / "0" if n_dimensions == 2 else location


def open_array(location: Location, plan: ShardPlan, dtype: str, row_shape: tuple[int, ...]) -> StoredArray:
    """Return the array of a split at a location; see `StoredArray` for the parameters."""
    if isinstance(location, FileLocation):
        return MappedArray(location, plan, dtype, row_shape)
    from ltstore.store.fetch import FetchedArray

    return FetchedArray(location, plan, dtype, row_shape)


class StoredArray(ABC):
    """One array of a split, read by rows; safe to use from threads, picklable.

    Parameters
    ----------
    location : Location
        The array's directory.
    plan : ShardPlan
    dtype : str
    row_shape : tuple of int
        () for a column, (D,) for a matrix.

    Notes
    -----
    Chunk offsets come from each shard's index and are checked against the file. Where the array is
    compressed, or its chunks do not lie end to end, reads go through zarr-python (slower, same values), and
    the log says so.
    """

    def __init__(self, location: Location, plan: ShardPlan, dtype: str, row_shape: tuple[int, ...]) -> None:
        self._arguments = (location, plan, dtype, row_shape)
        self._location = location
        self._plan = plan
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._row_shape = row_shape
        self._chunk_bytes = plan.chunk_rows * int(np.prod(row_shape, dtype=np.int64)) * self._dtype.itemsize
        self._row_bytes = self._chunk_bytes // plan.chunk_rows
        self._raw = self._read_layout()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    @property
    def own_layout(self) -> bool:
        """Whether it is laid out as this library writes; else it is read through zarr-python."""
        return self._raw

    def _read_layout(self) -> bool:
        """Whether the array has the layout of this library; StoreFormatError where it is another array."""
        where = self._location / GROUP_FILE
        try:
            found = read_json(where)
        except FileNotFoundError as err:
            raise StoreFormatError(f"{where} is missing: the store is damaged") from err
        shape = [self._plan.n_rows, *self._row_shape]
        for name, value in (("node_type", "array"), ("shape", shape), ("data_type", self._dtype.name)):
            if found.get(name) != value:
                raise StoreFormatError(f"{where}: {name} must be {value}, found {shown(found.get(name))}")
        expected = self._expected_layout()
        raw = all(found.get(name) == value for name, value in expected.items())
        raw = raw and not found.get("storage_transformers")  # there are none that could be passed over
        self._own_files = all(
            found.get(name) == expected[name] for name in ("chunk_grid", "chunk_key_encoding")
        )
        if not raw:
            _log.warning(
                "%s is compressed or laid out otherwise: reading it through zarr, slower", self._location
            )
        return raw

    def _expected_layout(self) -> dict[str, Any]:
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        inner = little if self._dtype.itemsize > 1 else {"name": "bytes"}
        checksum = {"name": "crc32c"}
        configuration = {
            "chunk_shape": [self._plan.chunk_rows, *self._row_shape],
            "codecs": [inner, checksum],
            "index_codecs": [little, checksum],
            "index_location": "end",
        }
        grid = {"chunk_shape": [self._plan.rows_per_shard, *self._row_shape]}
        return {
            "chunk_grid": {"name": "regular", "configuration": grid},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{"name": "sharding_indexed", "configuration": configuration}],
        }

    def _pipeline(self, shard: int, selection: slice | IntArray) -> NDArray[Any]:
        location = self._shard_location(shard)
        if self._own_files and not location.exists():  # Zarr would read zeros
            raise missing(location)
        from ltstore.store.zarr_arrays import read_array

        return read_array(self._location, selection)

    def _shard_location(self, shard: int) -> Location:
        return shard_location(self._location, shard, 1 + len(self._row_shape))

    def read(self, start: int, stop: int, out: NDArray[Any], *, unit: bool = False) -> None:
        """Copy rows [start, stop) into `out` (stop - start, ...), converting the dtype; `unit` scales them."""
        per_shard = self._plan.rows_per_shard
        in_order = (stop - start) * self._row_bytes >= IN_ORDER_BYTES
        row = start
        while row < stop:
            shard = row // per_shard
            end = min(stop, (shard + 1) * per_shard)
            self._read_of(shard, row, end, out[row - start : end - start], unit=unit, in_order=in_order)
            row = end

    def take(self, row_ids: IntArray, out: NDArray[Any], *, unit: bool = False) -> None:
        """Copy rows by id, in any order, repeats allowed, into `out`, converting the dtype; `unit` scales them."""
        if not len(row_ids):
            return
        shards = row_ids // self._plan.rows_per_shard
        if (shards == shards[0]).all():
            self._take_of(int(shards[0]), row_ids, out)
        else:
            order = np.argsort(shards, kind="stable")
            cuts = np.flatnonzero(np.diff(shards[order])) + 1
            ascending = bool((np.diff(shards) >= 0).all())
            for where in np.split(order, cuts):
                shard = int(shards[where[0]])
                if ascending:
                    self._take_of(shard, row_ids[where], out[where[0] : where[-1] + 1])
                else:
                    block = np.empty((len(where), *self._row_shape), out.dtype)
                    self._take_of(shard, row_ids[where], block)
                    out[where] = block
        if unit:
            scale_rows(out)

    def iter_chunks(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (row, rows from it on) over rows [start, stop), chunk by chunk and as they are stored.

        Read-only. Where the files are mapped they are views of them, and nothing is copied.
        """
        per_shard, per_chunk = self._plan.rows_per_shard, self._plan.chunk_rows
        row = start
        while row < stop:
            shard, local = divmod(row, per_shard)
            end = min(stop, row + per_chunk - local % per_chunk, (shard + 1) * per_shard)
            rows = self._chunk_of(shard, row, end)
            rows.flags.writeable = False
            yield row, rows
            row = end

    @abstractmethod
    def _chunk_of(self, shard: int, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop), all of one chunk of a shard, as they are stored: a view where possible."""

    @abstractmethod
    def _read_of(
        self, shard: int, start: int, stop: int, out: NDArray[Any], *, unit: bool, in_order: bool
    ) -> None:
        """Copy rows [start, stop), all of one shard, into `out`; `in_order`: as a part of a long run."""

    @abstractmethod
    def _take_of(self, shard: int, row_ids: IntArray, out: NDArray[Any]) -> None:
        """Copy the rows at `row_ids`, all of one shard, into `out`."""

    @abstractmethod
    def check_shard(self, shard: int) -> None:
        """Raise ChecksumMismatchError where a chunk of the shard does not match its checksum."""


class MappedArray(StoredArray):
    """An array in files of this machine: see `StoredArray`. At most `OPEN_MAPS` shards are mapped at a time."""

    def __init__(self, location: Location, plan: ShardPlan, dtype: str, row_shape: tuple[int, ...]) -> None:
        self._maps: OrderedDict[int, NDArray[Any] | None] = OrderedDict()
        self._lock = threading.Lock()
        self._table: RowTable | None = None
        super().__init__(location, plan, dtype, row_shape)
        self._pages = Pages(plan.n_rows * self._row_bytes)

    def _map(self, shard: int) -> NDArray[Any] | None:
        """Return (n_chunks, chunk_rows, ...) over the mapped file; None where zarr must read it."""
        if not self._raw:
            return None
        with self._lock:
            if shard in self._maps:
                self._maps.move_to_end(shard)
                kept = self._maps[shard]
                if kept is None or still_whole(kept):
                    return kept
                del self._maps[shard]  # cut short while it was open: opening it anew says so
                self._table = None
        view = self._open(shard)
        with self._lock:
            self._maps[shard] = view
            while len(self._maps) > OPEN_MAPS:
                self._maps.popitem(last=False)
        return view

    def _open(self, shard: int) -> NDArray[Any] | None:
        location = self._shard_location(shard)
        data = view_file(location)
        index = read_index(data, self._plan.chunks_per_shard, str(location))
        n_chunks = self._plan.n_chunks(shard)
        first = index.uniform_stride(n_chunks, self._chunk_bytes)
        if first is None:
            _log.warning("%s has chunks of another layout: reading it through zarr, slower", location)
            return None
        row_strides = np.empty((1, *self._row_shape), self._dtype).strides[1:]
        row_bytes = self._chunk_bytes // self._plan.chunk_rows
        return np.ndarray(
            (n_chunks, self._plan.chunk_rows, *self._row_shape),
            self._dtype,
            buffer=data,
            offset=first,
            strides=(self._chunk_bytes + CHECKSUM_BYTES, row_bytes, *row_strides),
        )

    def _read_of(
        self, shard: int, start: int, stop: int, out: NDArray[Any], *, unit: bool, in_order: bool
    ) -> None:
        view = self._map(shard)
        if view is None:
            copy_rows(self._pipeline(shard, slice(start, stop)), out, unit=unit)
            return
        first, per_chunk = shard * self._plan.rows_per_shard, self._plan.chunk_rows
        row = start
        while row < stop:
            chunk, within = divmod(row - first, per_chunk)
            end = min(stop, row + per_chunk - within)
            self._pages.read(view, (end - row) * self._row_bytes, in_order=in_order)
            copy_rows(view[chunk, within : within + end - row], out[row - start : end - start], unit=unit)
            row = end
        if in_order and stop == first + self._plan.rows_per_shard:
            self._pages.passed(view)

    def _chunk_of(self, shard: int, start: int, stop: int) -> NDArray[Any]:
        view = self._map(shard)
        if view is None:
            return self._pipeline(shard, slice(start, stop))
        chunk, within = divmod(start - shard * self._plan.rows_per_shard, self._plan.chunk_rows)
        self._pages.read(view, (stop - start) * self._row_bytes, in_order=True)
        return view[chunk, within : within + stop - start]

    def take(self, row_ids: IntArray, out: NDArray[Any], *, unit: bool = False) -> None:
        """Copy rows by id, see `StoredArray`: gathered from all shards in one go where all of them may be mapped."""
        if not len(row_ids):
            return
        shards = row_ids // self._plan.rows_per_shard
        if (table := self._table) is not None:  # every row there nearly always
            needed = np.flatnonzero(np.bincount(shards)).tolist()
            if all(still_whole(table.views[shard]) for shard in needed if shard in table.views):
                self._pages.take(table.views, self._plan.rows_per_shard, row_ids)
                if table.gather(row_ids, out, unit=unit):
                    return
        if table := self._row_table(shards):
            self._pages.take(table.views, self._plan.rows_per_shard, row_ids)
            if not table.gather(row_ids, out, unit=unit):
                raise IndexError(f"rows must lie in 0..{self._plan.n_rows - 1}, found {row_ids.max()}")
            return
        super().take(row_ids, out, unit=unit)

    def _row_table(self, shards: IntArray) -> RowTable | None:
        """Return the maps of these shards; None where zarr must read one, or where they are more than may be open."""
        first = int(shards.min())
        wanted = (np.flatnonzero(np.bincount(shards - first)) + first).tolist()
        if len(self._row_shape) != 1 or len(wanted) > OPEN_MAPS:
            return None
        views = {shard: view for shard in wanted if (view := self._map(shard)) is not None}
        if len(views) < len(wanted):
            return None
        with self._lock:
            known = {shard: view for shard, view in self._maps.items() if view is not None}
        table = RowTable(known if known.keys() >= views.keys() else views, self._plan.rows_per_shard)
        if self._plan.n_shards <= OPEN_MAPS:
            self._table = table
        return table

    def _take_of(self, shard: int, row_ids: IntArray, out: NDArray[Any]) -> None:
        view = self._map(shard)
        if view is None:
            np.copyto(out, self._pipeline(shard, row_ids))
        else:
            chunk, within = np.divmod(row_ids - shard * self._plan.rows_per_shard, self._plan.chunk_rows)
            copy_rows(view[chunk, within], out)

    def check_shard(self, shard: int) -> None:
        if not self._raw:
            return  # the pipeline checks what it reads
        location = self._shard_location(shard)
        data = view_file(location)
        if bad := bad_chunks(data, read_index(data, self._plan.chunks_per_shard, str(location))):
            raise ChecksumMismatchError(f"chunk {bad[0]} of {location} does not match its checksum: run verify")
