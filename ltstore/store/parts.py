"""The Parquet parts beside the arrays: key, label, status and error of every row, and extra columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltstore.errors import DataError, StoreFormatError, StoreReadError
from ltstore.storage import Location
from ltstore.store.plan import ShardPlan
from ltstore.types import ByteArray, IntArray

COLUMNS = ("key", "label", "status", "error")


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

    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(values.shape[1])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))
    try:
        return pa.array(values, type=kind)
    except UnicodeEncodeError:
        # File names that are not UTF-8 reach Python as lone surrogates, which Parquet cannot hold.
        text = [v if v is None else v.encode("utf-8", "backslashreplace").decode() for v in values]
        return pa.array(text, type=kind)


def parse_part(data: ByteArray, n_rows: int, where: str) -> Any:
    """Return all columns of a part as a pyarrow Table; StoreFormatError where it is none of a shard of `n_rows`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(data)) as part:
            table = part.read(use_threads=False)
            table.validate(full=True)
    except (pa.ArrowException, OSError) as err:
        raise StoreFormatError(f"cannot read {where}: {err}") from err
    types = {"key": pa.string(), "label": pa.int64(), "status": pa.uint8(), "error": pa.string()}
    for name, kind in types.items():
        if name not in table.column_names or table.schema.field(name).type != kind:
            raise StoreFormatError(f"{where} must have a column {name!r} of {kind}")
    if table.num_rows != n_rows:
        raise StoreFormatError(f"{where} must have {n_rows} rows, found {table.num_rows}")
    return table


def read_parts(split: Location, plan: ShardPlan, row_ids: IntArray, columns: Sequence[str]) -> Any:
    """Return a pyarrow Table of `columns`, one row per row id in the order given.

    Raises
    ------
    StoreFormatError
        A part is missing, damaged, of another length, or has no such column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = row_ids // plan.rows_per_shard
    wanted = np.unique(shards) if len(shards) else np.arange(min(plan.n_shards, 1))
    tables, first_rows = [], np.zeros(plan.n_shards + 1, np.int64)
    n_before = 0
    for shard in wanted.tolist():
        location = part_location(split, shard)
        start, stop = plan.shard_range(shard)
        try:
            with pq.ParquetFile(pa.BufferReader(location.view())) as part:
                known = part.schema_arrow.names
                present = [name for name in columns if name in known]
                table = part.read(columns=present, use_threads=False)
        except StoreReadError:
            raise
        except (pa.ArrowException, OSError) as err:
            raise StoreFormatError(f"cannot read {location}: {err}") from err
        if missing := [name for name in columns if name not in known]:
            raise StoreFormatError(f"{location} has no column {missing[0]!r}; it has {', '.join(known)}")
        if table.num_rows != stop - start:
            raise StoreFormatError(
                f"{location} must have {stop - start} rows, found {table.num_rows}: run verify"
            )
        tables.append(table.select(list(columns)))
        first_rows[shard] = n_before
        n_before += table.num_rows
    if not tables:
        return pa.table({name: [] for name in columns})
    return pa.concat_tables(tables).take(pa.array(first_rows[shards] + row_ids % plan.rows_per_shard))
