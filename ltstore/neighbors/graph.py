"""The nearest rows of every row: a graph too large for memory, block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.atomic import atomic_directory, encode_json, remove_directory, write_bytes, write_json
from ltstore.errors import ConfigError, DataError
from ltstore.neighbors.metric import RestrictedIndex
from ltstore.rows import BLOCK_ROWS, iter_blocks
from ltstore.types import FloatArray, IntArray, Progress, Rows, no_progress

IDS_FILE, DISTANCES_FILE, RECORD_FILE = "neighbor_ids.npy", "distances.npy", "record.json"
_IDS, _DISTANCES = np.dtype("<i8"), np.dtype("<f4")


def iter_graph(
    index: RestrictedIndex, rows: Rows, k: int, *, block_rows: int = BLOCK_ROWS
) -> Iterator[tuple[int, IntArray, FloatArray]]:
    """Yield (start, neighbor_ids (n, k), distances (n, k)) for the rows in order, each row itself left out by id.

    Parameters
    ----------
    index : RestrictedIndex
        Of `rows`. With `ExactIndex` nothing but two blocks is in memory, and the rows are read once for each block.
    rows : Rows
    k : int
    block_rows : int
        Rows that ask together.

    Raises
    ------
    ConfigError, DataError
        k is below 1, or the index is of other rows.
    """
    _check(index, rows, k)
    for start, X, _ in iter_blocks(rows, block_rows):
        yield start, *index.search(X, k, exclude=rows.row_ids[start : start + len(X)])


def _check(index: RestrictedIndex, rows: Rows, k: int) -> None:
    if k < 1:
        raise ConfigError(f"k must be at least 1, found {k}")
    if not np.array_equal(index.row_ids, rows.row_ids):
        raise DataError("the index is not of these rows: build it from them")


def write_graph(
    index: RestrictedIndex,
    rows: Rows,
    k: int,
    directory: Path,
    record: Mapping[str, Any],
    *,
    progress: Progress = no_progress,
) -> None:
    """Write the graph as `neighbor_ids.npy` (N, k) int64 and `distances.npy` (N, k) float32, whole or not at all.

    Each block of rows is kept as it is found, in the directory building-NAME beside it, and a run that was killed goes
    on from there to the same bytes. A block of other rows, k, metric, settings or origin, or a damaged one, is found
    anew.

    Parameters
    ----------
    index, rows, k
        As in `iter_graph`.
    directory : Path
        Replaced if it is there.
    record : mapping
        From `ltstore.provenance.record`; kept as `record.json`. Its "made_from" must tell this index from any other of
        the same rows.
    progress : Progress

    Raises
    ------
    ConfigError, DataError, StoreWriteError

    Notes
    -----
    12 k bytes a row on disk, twice as many until it is finished; in memory one block.
    """
    _check(index, rows, k)
    made_of = [rows.digest, index.metric, k, record.get("settings"), record.get("made_from")]
    blocks = directory.with_name(f"building-{directory.name}")
    shape = (rows.n_samples, k)
    with atomic_directory(directory) as temporary:
        with (temporary / IDS_FILE).open("wb") as ids, (temporary / DISTANCES_FILE).open("wb") as distances:
            for handle, dtype in ((ids, _IDS), (distances, _DISTANCES)):
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(handle, header)
            for start in range(0, rows.n_samples, BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, rows.n_samples)
                data = _block(index, rows, k, start, stop, blocks / f"{start:012d}", encode_json(made_of))
                n_id_bytes = (stop - start) * k * _IDS.itemsize
                ids.write(data[:n_id_bytes])
                distances.write(data[n_id_bytes:])
                progress(stop - start, {})
        write_json(temporary / RECORD_FILE, dict(record))
    remove_directory(blocks)


def _block(
    index: RestrictedIndex, rows: Rows, k: int, start: int, stop: int, file: Path, made_of: bytes
) -> bytes:
    """Return the ids and then the distances of rows start..stop-1: out of a file of them, which is written else.

    The file ends in the digest of what they were made of and of themselves.
    """
    size = (stop - start) * k * (_IDS.itemsize + _DISTANCES.itemsize)
    if file.is_file() and file.stat().st_size == size + hashlib.sha256().digest_size:
        kept = file.read_bytes()
        if hashlib.sha256(made_of + kept[:size]).digest() == kept[size:]:
            return kept[:size]
    ids, distances = index.search(rows.read(start, stop), k, exclude=rows.row_ids[start:stop])
    data = ids.astype(_IDS).tobytes() + distances.astype(_DISTANCES).tobytes()
    write_bytes(file, data + hashlib.sha256(made_of + data).digest())
    return data
