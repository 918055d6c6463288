"""Parquet files of others: opened without trusting what they claim to hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.errors import LtstoreError, SourceError, SourceNotFoundError
from ltstore.parquet_pages import LIMIT_FOOTER_BYTES, LIMIT_FOOTER_ITEMS, check_pages, read_footer

PARQUET_SUFFIXES = (".parquet", ".pq")
_FREE_BYTES = 1 << 28
_LARGEST_RATIO = 64
"""Of bytes that pages claim to hold to bytes of the file, above the free ones."""


@contextmanager
def open_parquet(
    path: Path, columns: Sequence[str] = (), *, group: int | None = None, room: int | None = None
) -> Iterator[Any]:
    """Open a Parquet file; SourceError names what cannot be read, at opening and inside the block.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Those that are going to be read: their pages may not claim to hold far more than the file. Columns of text
        among them come as dictionaries where the file has those.
    group : int, optional
        The row group that they are read of; default all.
    room : int, optional
        Most bytes that they may claim; default 256 MiB and 64 times those of the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        folded = _checked(path, columns, group, room)
        with pq.ParquetFile(
            path,
            memory_map=True,
            read_dictionary=folded,
            thrift_string_size_limit=LIMIT_FOOTER_BYTES,
            thrift_container_size_limit=LIMIT_FOOTER_ITEMS,
        ) as file:
            yield file
    except FileNotFoundError as err:
        raise SourceNotFoundError(f"no file {path}") from err
    except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
        if isinstance(err, LtstoreError):
            raise
        raise SourceError(f"cannot read {path} as Parquet: {str(err).splitlines()[0]}") from err


def _checked(path: Path, columns: Sequence[str], group: int | None, room: int | None) -> list[str]:
    """Return the columns of text that have dictionaries, having looked at the footer and the pages."""
    try:
        data = np.memmap(path, np.uint8, "r").data
        n_rows, chunks = read_footer(data)
        if group is not None:
            n_columns = len({chunk.path for chunk in chunks})
            chunks = chunks[group * n_columns : (group + 1) * n_columns]
        room = _FREE_BYTES + _LARGEST_RATIO * len(data) if room is None else room
        if not 0 <= 8 * n_rows <= _FREE_BYTES + _LARGEST_RATIO * len(data):
            raise ValueError(f"{len(data)} bytes claim to hold {n_rows} rows")
        return check_pages(chunks, data, columns, n_rows, room)
    except ValueError as err:
        raise SourceError(f"cannot read {path} as Parquet: {err}") from err


def read_columns(path: Path, names: Sequence[str]) -> Any:
    """Return a pyarrow Table of some columns, whole."""
    import pyarrow as pa

    with open_parquet(path, names) as file:
        known = file.schema_arrow.names
        if absent := [name for name in names if name not in known]:
            raise SourceError(f"{path} has no column {absent[0]!r}; it has {', '.join(known)}")
        table = file.read(columns=list(names), use_threads=False)
        if table.num_rows != file.metadata.num_rows:
            raise SourceError(f"{path} declares {file.metadata.num_rows} rows, found {table.num_rows}")
        for position, name in enumerate(names):
            column = table.column(name)
            if pa.types.is_dictionary(column.type):
                table = table.set_column(position, name, _unfolded(column, path))
        return table.select(list(names))


def _unfolded(column: Any, path: Path) -> Any:
    """Return a column of text without its dictionary; SourceError where a long value stands in many rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    n_bytes = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
        n_bytes += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if n_bytes > _FREE_BYTES + _LARGEST_RATIO * path.stat().st_size:
        raise SourceError(f"{path} unfolds to {n_bytes} bytes of text")
    return column.cast(column.type.value_type)
