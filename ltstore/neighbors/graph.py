"""The nearest rows of every row: a graph too large for memory, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.atomic import atomic_directory, write_json
from ltstore.errors import ConfigError, DataError
from ltstore.neighbors.metric import RestrictedIndex
from ltstore.rows import BLOCK_ROWS, iter_blocks
from ltstore.types import FloatArray, IntArray, Progress, Rows, no_progress

IDS_FILE, DISTANCES_FILE, RECORD_FILE = "neighbor_ids.npy", "distances.npy", "record.json"


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
    if k < 1:
        raise ConfigError(f"k must be at least 1, found {k}")
    if not np.array_equal(index.row_ids, rows.row_ids):
        raise DataError("the index is not of these rows: build it from them")
    for start, X, _ in iter_blocks(rows, block_rows):
        yield start, *index.search(X, k, exclude=rows.row_ids[start : start + len(X)])


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

    Parameters
    ----------
    index, rows, k
        As in `iter_graph`.
    directory : Path
        Replaced if it is there.
    record : mapping
        From `ltstore.provenance.record`; kept as `record.json`.
    progress : Progress

    Raises
    ------
    ConfigError, DataError, StoreWriteError

    Notes
    -----
    12 k bytes a row on disk; in memory one block.
    """
    with atomic_directory(directory) as temporary:
        shape = (rows.n_samples, k)
        ids = np.lib.format.open_memmap(temporary / IDS_FILE, "w+", np.dtype("<i8"), shape)
        distances = np.lib.format.open_memmap(temporary / DISTANCES_FILE, "w+", np.dtype("<f4"), shape)
        for start, found, near in iter_graph(index, rows, k):
            ids[start : start + len(found)], distances[start : start + len(found)] = found, near
            progress(len(found), {})
        ids.flush()
        distances.flush()
        write_json(temporary / RECORD_FILE, dict(record))
