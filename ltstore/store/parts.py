"""The Parquet parts beside the arrays: key, label, status and error of every row, and extra columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltstore.errors import DataError, LtstoreError, StoreFormatError
from ltstore.parquet_pages import LIMIT_FOOTER_BYTES, LIMIT_FOOTER_ITEMS, check_pages, read_footer
from ltstore.storage import Location
from ltstore.store.bounds import FREE_CHUNK_BYTES, LARGEST_RATIO
from ltstore.store.format import shown, shown_line
from ltstore.store.plan import ShardPlan
from ltstore.store.reader import view_file
from ltstore.types import ByteArray, IntArray

COLUMNS = ("key", "label", "status", "error")
_TYPES = {"key": "string", "label": "int64", "status": "uint8", "error": "string"}


def part_location(split: Location, shard: int) -> Location:
    """Return where the part of a shard lies."""
    return split / "rows" / f"part-{shard:05d}.parquet"


def encode_part(
    *,
    keys: Sequence[str],
    labels: IntArray,
    status: ByteArray,
    errors: Sequence[str | None],
    extra: Mapping[str, Any],
) -> bytes:
    """Return the bytes of a Parquet part: equal rows give equal bytes (for one pyarrow version).

    Raises
    ------
    DataError
        A column has another length than the shard, a name that is taken, or values without a common type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = len(labels)
    columns: dict[str, Any] = {"key": keys, "label": labels, "status": status, "error": errors}
    for name in extra:
        if name in COLUMNS:
            raise DataError(f"extra column {name!r} is one of the store's own {', '.join(COLUMNS)}: rename it")
    columns.update(extra)
    types = {"key": pa.string(), "label": pa.int64(), "status": pa.uint8(), "error": pa.string()}
    arrays = {}
    for name, values in columns.items():
        if len(values) != n:
            raise DataError(f"column {name!r} must have one value for each of {n} rows, found {len(values)}")
        try:
            arrays[name] = _column(values, types.get(name))
        except (pa.ArrowException, TypeError, UnicodeError) as err:
            raise DataError(f"column {name!r} cannot be stored: {err}") from err
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd", row_group_size=max(n, 1))
    return bytes(sink.getvalue())


def _column(values: Any, kind: Any) -> Any:
    import pyarrow as pa

    if isinstance(values, np.ma.MaskedArray) and values.ndim == 2:  # lists of what is not masked
        ends = np.concatenate([[0], np.cumsum(values.count(axis=1))])
        return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(values.compressed()))
    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(values.shape[1])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, type=kind)
    except UnicodeEncodeError:
        # File names that are not UTF-8 reach Python as lone surrogates, which Parquet cannot hold.
        text = [v if v is None else v.encode("utf-8", "backslashreplace").decode() for v in values]
        return pa.array(text, type=kind)


def read_parts(split: Location, plan: ShardPlan, row_ids: IntArray, columns: Sequence[str]) -> Any:
    """Return a pyarrow Table of `columns`, one row per row id in the order given.

    Raises
    ------
    StoreFormatError
        A part is missing, damaged, of another length, or has no such column.
    """
    import pyarrow as pa

    shards = row_ids // plan.rows_per_shard
    wanted = np.unique(shards) if len(shards) else np.arange(min(plan.n_shards, 1))
    tables = []
    for shard in wanted.tolist():
        start, stop = plan.shard_range(shard)
        tables.append(_read_part(part_location(split, shard), stop - start, columns))
    if not tables:
        return pa.table({name: [] for name in columns})
    place = np.searchsorted(wanted, shards)
    first_rows = np.cumsum([0, *(table.num_rows for table in tables)])
    try:
        table = pa.concat_tables(tables)
    except pa.ArrowException as err:
        raise StoreFormatError(f"the parts of {split} differ in their columns: {shown_line(err)}") from err
    return table.take(pa.array(first_rows[place] + row_ids % plan.rows_per_shard))


def _read_part(location: Location, n_rows: int, columns: Sequence[str]) -> Any:
    return parse_part(view_file(location), n_rows, str(location), columns)


def parse_part(data: ByteArray, n_rows: int, where: str, columns: Sequence[str] | None = None) -> Any:
    """Return columns of a part, default all, as a pyarrow Table: the store's own of their types, text unfolded.

    Raises
    ------
    StoreFormatError
        It is no part of `n_rows` rows, has no such column, or claims to hold far more than it has bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found, chunks = read_footer(data.data)
        if found != n_rows:
            raise StoreFormatError(f"{where} must have {n_rows} rows, found {found}: run verify")
        wanted = sorted({chunk.path[0] for chunk in chunks}) if columns is None else columns
        room = FREE_CHUNK_BYTES + LARGEST_RATIO * len(data)
        folded = check_pages(chunks, data.data, wanted, n_rows, room)
        with pq.ParquetFile(
            pa.BufferReader(pa.py_buffer(data)),
            read_dictionary=folded,
            thrift_string_size_limit=LIMIT_FOOTER_BYTES,
            thrift_container_size_limit=LIMIT_FOOTER_ITEMS,
        ) as part:
            known = part.schema_arrow.names
            wanted = known if columns is None else columns
            if missing := [
                name for name in (*wanted, *(COLUMNS if columns is None else ())) if name not in known
            ]:
                raise StoreFormatError(
                    f"{where} has no column {shown(missing[0])}; it has {shown_line(', '.join(known))}"
                )
            table = part.read(columns=list(wanted), use_threads=False).select(list(wanted))
            if table.num_rows != n_rows:
                raise StoreFormatError(f"{where} must have {n_rows} rows, found {table.num_rows}: run verify")
            for position, name in enumerate(wanted):
                if name in COLUMNS or name in folded:
                    table = table.set_column(position, name, _typed(table.column(name), name, len(data)))
            table.validate(full=True)  # pages have no checksum: text may have become no UTF-8
            return table
    except LtstoreError:
        raise
    except Exception as err:
        raise StoreFormatError(f"cannot read {where}: {shown_line(err)}") from err


def _typed(column: Any, name: str, file_bytes: int) -> Any:
    """Return a column unfolded, one of the store's own in its type; ValueError where that is another or has nulls."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        for chunk in column.chunks:  # a long value may stand in every row
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            n_bytes = pc.sum(lengths.take(chunk.indices)).as_py() or 0
            if n_bytes > FREE_CHUNK_BYTES + LARGEST_RATIO * file_bytes:
                raise ValueError(f"column {name!r} unfolds to {n_bytes} bytes")
    if name not in _TYPES:
        return column.cast(kind)
    expected = getattr(pa, _TYPES[name])()
    if kind != expected and not (name in ("key", "error") and pa.types.is_large_string(kind)):
        raise ValueError(f"column {name!r} must be {expected}, found {shown_line(str(kind))}")
    if name != "error" and column.null_count:
        raise ValueError(f"column {name!r} has {column.null_count} rows without a value")
    return column.cast(expected)
