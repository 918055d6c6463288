"""Parquet: one list column of floats as embeddings, read batch by batch, and the columns beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import DataError
from ltstore.sources.parquet_file import open_parquet
from ltstore.transfer.parts import BLOCK_ROWS, StreamedPart


def list_columns(schema: Any) -> list[str]:
    """Return the names of the columns that are lists of floats."""
    import pyarrow.types as types

    found = []
    for field in schema:
        kind = field.type
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if is_list and types.is_floating(kind.value_type):
            found.append(field.name)
    return found


class ParquetPart(StreamedPart):
    """A list column of floats.

    A null in the column becomes a row of NaN, and so a failed row of the store; a null inside a list one NaN.
    """

    def __init__(self, path: Path, column: str) -> None:
        with open_parquet(path) as file:
            kind = file.schema_arrow.field(column).type
            n_rows = file.metadata.num_rows
            n_features = getattr(kind, "list_size", 0) or _first_length(file, column)
        if not n_features:
            raise DataError(
                f"{path} [{column}] has no row with an embedding: its number of features is unknown"
            )
        super().__init__(path, column, (n_rows, n_features), np.dtype(kind.value_type.to_pandas_dtype()))

    def _iter_from(self, start: int) -> Iterator[NDArray[Any]]:
        with open_parquet(self.path) as file:
            group, before = 0, 0
            n_groups = file.metadata.num_row_groups
            while group < n_groups and before + file.metadata.row_group(group).num_rows <= start:
                before += file.metadata.row_group(group).num_rows
                group += 1
            for batch in _batches(file, self.array, range(group, n_groups)):
                skip = min(max(start - before, 0), len(batch))
                if skip < len(batch):
                    yield self._matrix(batch.slice(skip), before + skip)
                before += len(batch)

    def _matrix(self, column: Any, first_row: int) -> NDArray[Any]:
        import pyarrow.compute as pc

        valid = np.asarray(column.is_valid())
        lengths = np.asarray(pc.list_value_length(column).fill_null(self.n_features))
        if (lengths != self.n_features).any():
            row = int(np.argmax(lengths != self.n_features))
            raise DataError(
                f"{self.where} must have {self.n_features} features in every row, "
                f"found {lengths[row]} in row {first_row + row}"
            )
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.n_features)
        if valid.all():
            return np.asarray(values, self.dtype)
        matrix = np.full((len(column), self.n_features), np.nan, self.dtype)
        matrix[valid] = values
        return matrix


def _first_length(file: Any, column: str) -> int:
    for batch in _batches(file, column, range(file.metadata.num_row_groups)):
        for length in batch.value_lengths().drop_null().to_pylist():
            return int(length)
    return 0


def _batches(file: Any, column: str, groups: range) -> Iterator[Any]:
    if not groups:
        return
    for batch in file.iter_batches(BLOCK_ROWS, row_groups=list(groups), columns=[column], use_threads=False):
        yield batch.column(column)
