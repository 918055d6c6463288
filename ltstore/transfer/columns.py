"""Labels and keys of foreign rows: from files, arrays and Parquet columns, to positions in class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import ConfigError, DataError, LabelError, SourceError
from ltstore.sources.parquet_file import open_parquet, read_columns
from ltstore.transfer.npy import open_file, read_npy
from ltstore.types import UNLABELLED, IntArray

LABEL_NAMES = ("label", "labels", "y", "target", "targets")
KEY_NAMES = ("uid", "image_path", "key", "keys", "path", "file_name", "filename", "url", "id")

LabelValues = IntArray | list[str | None]
"""Positions in the class names, or the class names themselves (None where a row has none)."""


def choose_column(names: Sequence[str], known: Sequence[str], wanted: str | None, where: str) -> str | None:
    """Return the column that holds labels or keys: the wanted one, or the first of `known` that is there."""
    if wanted is not None:
        if wanted not in names:
            raise SourceError(f"{where} has no {wanted!r}; it has {', '.join(names) or 'nothing'}")
        return wanted
    return next((name for name in known if name in names), None)


def choose_label(names: Sequence[str], wanted: str | None, where: str) -> str | None:
    """Return the label column; SourceError where several could be meant."""
    found = [name for name in LABEL_NAMES if name in names]
    if wanted is None and len(found) > 1:
        raise SourceError(
            f"{where} has several columns of labels: {', '.join(found)}; name one (--label-array)"
        )
    return choose_column(names, LABEL_NAMES, wanted, where)


def label_values(values: Any, where: str) -> LabelValues:
    """Return labels of a NumPy array or a pyarrow column as ints or class names.

    Raises
    ------
    LabelError
        They are neither integers nor strings, or an integer does not fit.
    """
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        if values.ndim == 1 and values.dtype.kind in "UT":
            return list(values.tolist())
        return _integers(values, where)
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return list(values.to_pylist())
    if not pa.types.is_integer(kind):
        raise LabelError(f"{where} must hold integers or class names, found {values.type}")
    return _integers(
        values.fill_null(UNLABELLED).to_numpy() if not pa.types.is_unsigned_integer(kind) else _signed(values),
        where,
    )


def _signed(values: Any) -> NDArray[Any]:
    filled = values.fill_null(0).to_numpy()
    signed: NDArray[Any] = np.where(filled > np.uint64(2**62), 2**62, filled).astype(np.int64)
    signed[np.asarray(values.is_null())] = UNLABELLED
    return signed


def _integers(values: NDArray[Any], where: str) -> IntArray:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise LabelError(
            f"{where} must hold one integer or class name for each row, found {values.dtype} of shape {values.shape}"
        )
    if len(values) and int(values.max()) > 2**62:
        raise LabelError(f"{where} holds the label {int(values.max())}: no class has that number")
    return values.astype(np.int64)


def join_labels(pieces: Sequence[LabelValues], where: str) -> LabelValues:
    """Return the labels of all parts as one column; all must be of one kind."""
    if all(isinstance(piece, np.ndarray) for piece in pieces):
        return np.concatenate([np.asarray(piece, np.int64) for piece in pieces])
    if any(isinstance(piece, np.ndarray) for piece in pieces):
        raise LabelError(f"{where}: labels are integers in some parts and class names in others")
    return [name for piece in pieces for name in piece]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without a byte-order mark; undecodable bytes as backslash escapes."""
    with open_file(path) as handle:
        text = handle.read().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "backslashreplace")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    return lines


def read_labels(path: Path, wanted: str | None = None) -> LabelValues:
    """Return the labels of a `.npy`, a Parquet file, or a text file with one label a line."""
    if path.suffix == ".npy":
        return label_values(read_npy(path), str(path))
    if path.suffix in (".parquet", ".pq"):
        with open_parquet(path) as file:
            name = choose_label(file.schema_arrow.names, wanted, str(path))
        if name is None:
            raise SourceError(f"{path} has no column of labels: name it (--label-array)")
        return label_values(read_columns(path, [name]).column(name).combine_chunks(), f"{path} [{name}]")
    lines = [line.strip() for line in read_lines(path)]
    if all(line.lstrip("-").isdecimal() and len(line) < 19 for line in lines):
        return np.array([int(line) for line in lines], np.int64)
    if "" in lines:
        raise LabelError(f"{path}, line {lines.index('') + 1}: expected a label, found an empty line")
    return list(lines)


def key_column(values: Any, where: str) -> Any:
    """Return keys as a pyarrow column of strings; DataError for a null."""
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        if values.ndim != 1 or values.dtype.kind not in "Uiu":
            raise DataError(f"{where} must hold a string for each row, found {values.dtype} of {values.shape}")
        texts = [str(v).encode("utf-8", "backslashreplace").decode() for v in values.tolist()]
        return pa.chunked_array([pa.array(texts, pa.large_string())])
    if values.null_count:
        row = int(np.argmax(np.asarray(values.is_null())))
        raise DataError(f"{where} has no key in row {row}: choose another column (--key-array)")
    try:
        return values.cast(pa.large_string())
    except pa.ArrowException as err:
        raise DataError(f"{where} cannot be used as keys: {str(err).splitlines()[0]}") from err


def read_keys(path: Path, wanted: str | None = None) -> Any:
    """Return the keys of a `.npy` of strings, a Parquet file, or a text file with one key a line."""
    import pyarrow as pa

    if path.suffix == ".npy":
        return key_column(read_npy(path), str(path))
    if path.suffix in (".parquet", ".pq"):
        with open_parquet(path) as file:
            name = choose_column(file.schema_arrow.names, KEY_NAMES, wanted, str(path))
        if name is None:
            raise SourceError(f"{path} has no column of keys: name it (--key-array)")
        return key_column(read_columns(path, [name]).column(name), f"{path} [{name}]")
    return pa.chunked_array([pa.array(read_lines(path), pa.large_string())])


def resolve_labels(
    values: LabelValues | None,
    n_rows: int,
    class_names: Sequence[str] | None,
    where: str,
) -> tuple[IntArray, tuple[str, ...]]:
    """Return labels as positions in the class names, and those.

    Parameters
    ----------
    values : ints, class names, or None where rows are unlabelled
    n_rows : int
    class_names : sequence of str or None
        None: the names found, sorted, or "0", "1", ... up to the largest label.
    where : str
        Where the labels come from, for messages.

    Raises
    ------
    LabelError
        Another number of labels than rows; a label outside the classes: names the row.
    """
    if values is None:
        return np.full(n_rows, UNLABELLED, np.int64), tuple(class_names or ())
    if len(values) != n_rows:
        raise LabelError(f"{where} must hold a label for each of {n_rows} rows, found {len(values)}")
    if isinstance(values, np.ndarray):
        names = (
            class_names if class_names is not None else [str(i) for i in range(int(values.max(initial=-1)) + 1)]
        )
        outside = (values < UNLABELLED) | (values >= len(names))
        if outside.any():
            row = int(np.argmax(outside))
            raise LabelError(
                f"label {values[row]} of row {row} in {where} is outside the {len(names)} classes: "
                "give the class names that it was made for (--classes)"
            )
        return values, tuple(names)
    names = class_names if class_names is not None else sorted({name for name in values if name is not None})
    positions: Mapping[str | None, int] = {name: i for i, name in reversed(list(enumerate(names)))}
    if len(positions) != len(names):
        raise ConfigError(f"{where} names classes, but the class names hold one name twice: label by number")
    labels = np.empty(n_rows, np.int64)
    for row, name in enumerate(values):
        label = UNLABELLED if name is None else positions.get(name)
        if label is None:
            raise LabelError(f"class {name!r} of row {row} in {where} is not one of the {len(names)} classes")
        labels[row] = label
    return labels, tuple(names)
