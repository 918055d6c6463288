"""Reading rows of a stored array: shard files are mapped, and rows copied straight out of them."""

from __future__ import annotations

import logging
import mmap
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import ChecksumMismatchError, StoreFormatError
from ltstore.store.format import GROUP_FILE, open_regular, read_json, shown
from ltstore.store.plan import ShardPlan
from ltstore.store.shard import CHECKSUM_BYTES, bad_chunks, read_index
from ltstore.types import ByteArray, FloatArray, IntArray

OPEN_MAPS = 64
_log = logging.getLogger(__name__)


def widen_half(source: NDArray[np.float16], out: FloatArray) -> None:
    """Convert finite float16 to float32: ``out[...] = source``, about ten times faster.

    Shifts exponent and mantissa into place and multiplies by 2**112, the difference of the exponent biases,
    which is exact, subnormals included. Infinity and NaN are not representable this way; stored rows have
    neither.

    Parameters
    ----------
    source : (n, D) float16, last axis contiguous
    out : (n, D) float32, C-contiguous
        Overwritten.
    """
    bits = out.view(np.int32)
    np.copyto(bits, source.view(np.int16))  # sign-extends: the sign arrives at bit 31
    np.left_shift(bits, 13, out=bits)
    words = out.view(np.uint32)
    np.bitwise_and(words, np.uint32(0x8FFFE000), out=words)
    np.multiply(out, np.float32(2.0**112), out=out)


def copy_rows(source: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy rows into `out`, converting the dtype."""
    if source.dtype == np.float16 and out.dtype == np.float32 and out.flags.c_contiguous:
        widen_half(source, out)
    else:
        np.copyto(out, source)


def map_file(path: Path) -> ByteArray:
    """Return a file's bytes as a read-only (n,) uint8 array over a memory map."""
    try:
        with os.fdopen(open_regular(path), "rb") as handle:
            return np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError as err:
        raise StoreFormatError(f"{path} is missing though its shard was written: run verify") from err
    except StoreFormatError:
        raise
    except ValueError as err:
        raise StoreFormatError(f"{path} is empty: it was cut short; run verify") from err
    except OSError as err:
        raise StoreFormatError(f"cannot read {path}: {err.strerror or err}") from err


def still_whole(view: NDArray[Any]) -> bool:
    """Whether the file under an array of `map_file` is as long as it was: to read past its end kills the process."""
    base: Any = view
    while isinstance(base, np.ndarray):
        view, base = base, base.base
    mapped = base.obj if isinstance(base, memoryview) else base
    return not isinstance(mapped, mmap.mmap) or bool(mapped.size() >= view.nbytes)


def shard_path(array: Path, shard: int, n_dimensions: int) -> Path:
    """Return the file of a shard (Zarr's default chunk keys: c/SHARD/0 for two dimensions)."""
    return array.joinpath("c", str(shard), *["0"] * (n_dimensions - 1))


class StoredArray:
    """One array of a split, read by rows; safe to use from threads, picklable.

    Parameters
    ----------
    path : Path
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

    def __init__(self, path: Path, plan: ShardPlan, dtype: str, row_shape: tuple[int, ...]) -> None:
        self._arguments = (path, plan, dtype, row_shape)
        self._path = path
        self._plan = plan
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._row_shape = row_shape
        self._chunk_bytes = plan.chunk_rows * int(np.prod(row_shape, dtype=np.int64)) * self._dtype.itemsize
        self._maps: OrderedDict[int, NDArray[Any] | None] = OrderedDict()
        self._lock = threading.Lock()
        self._raw = self._read_layout()

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredArray, self._arguments

    @property
    def own_layout(self) -> bool:
        """Whether it is laid out as this library writes; else it is read through zarr-python."""
        return self._raw

    def _read_layout(self) -> bool:
        """Whether the array has the layout of this library; StoreFormatError where it is another array."""
        where = self._path / GROUP_FILE
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
            _log.warning("%s is compressed or laid out otherwise: reading it through zarr, slower", self._path)
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
        view = self._open(shard)
        with self._lock:
            self._maps[shard] = view
            while len(self._maps) > OPEN_MAPS:
                self._maps.popitem(last=False)
        return view

    def _open(self, shard: int) -> NDArray[Any] | None:
        path = shard_path(self._path, shard, 1 + len(self._row_shape))
        data = map_file(path)
        index = read_index(data, self._plan.chunks_per_shard, str(path))
        n_chunks = self._plan.n_chunks(shard)
        first = index.uniform_stride(n_chunks, self._chunk_bytes)
        if first is None:
            _log.warning("%s has chunks of another layout: reading it through zarr, slower", path)
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

    def _pipeline(self, shard: int, selection: slice | IntArray) -> NDArray[Any]:
        path = shard_path(self._path, shard, 1 + len(self._row_shape))
        if self._own_files and not path.exists():  # Zarr would read zeros
            raise StoreFormatError(f"{path} is missing though its shard was written: run verify")
        from ltstore.store.zarr_arrays import read_array

        return read_array(self._path, selection)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copy rows [start, stop) into `out` (stop - start, ...), converting the dtype."""
        per_shard, per_chunk = self._plan.rows_per_shard, self._plan.chunk_rows
        row = start
        while row < stop:
            shard, local = divmod(row, per_shard)
            view = self._map(shard)
            if view is None:
                end = min(stop, (shard + 1) * per_shard)
                np.copyto(out[row - start : end - start], self._pipeline(shard, slice(row, end)))
            else:
                chunk, within = divmod(local, per_chunk)
                end = min(stop, row + per_chunk - within)
                copy_rows(view[chunk, within : within + end - row], out[row - start : end - start])
            row = end

    def take(self, row_ids: IntArray, out: NDArray[Any]) -> None:
        """Copy the rows at `row_ids` (any order, repeats allowed) into `out`, converting the dtype."""
        shards = row_ids // self._plan.rows_per_shard
        if not len(row_ids):
            return
        if (shards == shards[0]).all():
            self._take_of(int(shards[0]), row_ids, out)
            return
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

    def _take_of(self, shard: int, row_ids: IntArray, out: NDArray[Any]) -> None:
        view = self._map(shard)
        if view is None:
            np.copyto(out, self._pipeline(shard, row_ids))
        else:
            chunk, within = np.divmod(row_ids - shard * self._plan.rows_per_shard, self._plan.chunk_rows)
            copy_rows(view[chunk, within], out)

    def check_shard(self, shard: int) -> None:
        """Raise ChecksumMismatchError where a chunk of the shard does not match its checksum."""
        if not self._raw:
            return  # the pipeline checks what it reads
        path = shard_path(self._path, shard, 1 + len(self._row_shape))
        data = map_file(path)
        if bad := bad_chunks(data, read_index(data, self._plan.chunks_per_shard, str(path))):
            raise ChecksumMismatchError(f"chunk {bad[0]} of {path} does not match its checksum: run verify")
