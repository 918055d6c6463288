"""Labels as files hold them, numbers or class names, to positions in class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ltstore.errors import LabelError, SourceError
from ltstore.sources.keys import key_of
from ltstore.types import UNLABELLED, IntArray

LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label", "category_id")
"""Where labels are looked for when no column is named."""
MOST_CLASSES = 1 << 24
_WHOLE_NUMBER = r"^\s*-?[0-9]{1,18}\s*$"


def choose_column(names: Sequence[str], known: Sequence[str], wanted: str | None, where: str) -> str | None:
    """Return the wanted column, or the first of `known` that is there in any case; SourceError where wanted is not."""
    if wanted is not None:
        if wanted not in names:
            has = key_of(", ".join(names[:20])) or "no columns"
            raise SourceError(f"{where} has no column {wanted!r}; it has {has}")
        return wanted
    lowered = {name.lower(): name for name in reversed(names)}
    return next((lowered[name] for name in known if name in lowered), None)


def is_hardly_a_class(number: int, n_rows: int) -> bool:
    """Whether a label is far beyond the number of rows: without class names, a name would be made for each below."""
    return number > 100 * n_rows + 1000


def resolve_labels(
    column: Any, class_names: Sequence[str] | None, where: Callable[[int], str]
) -> tuple[IntArray, tuple[str, ...]]:
    """Return labels as positions in class names, and those names.

    Parameters
    ----------
    column : pyarrow array of N integers, or of N strings
        Null where a row has no label. Strings that are all whole numbers count as integers.
    class_names : sequence of str, optional
        What integers are positions in; default "0", "1", ... up to the largest. Class names in the column stay as
        they are, sorted.
    where : callable
        From a row to the words that name it in an error.

    Raises
    ------
    LabelError
        Neither integers nor strings, or an integer outside the classes: names the row.
    SourceError
        An integer is hardly a class number.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        numbers = pc.match_substring_regex(column, _WHOLE_NUMBER)
        if not pc.all(numbers, min_count=0).as_py():
            return _of_names(column)
        column = pc.utf8_trim_whitespace(column).cast(pa.int64())
    if not pa.types.is_integer(column.type):
        raise LabelError(f"{where(0)}: labels must be whole numbers or class names, found {column.type}")
    return _of_numbers(column, class_names, where)


def _of_names(column: Any) -> tuple[IntArray, tuple[str, ...]]:
    folded = column.dictionary_encode()
    found = folded.dictionary.to_pylist()
    order = sorted(range(len(found)), key=found.__getitem__)
    position = np.empty(len(found) + 1, np.int64)
    position[order] = np.arange(len(found))
    position[-1] = UNLABELLED
    codes = folded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return position[codes], tuple(key_of(found[i]) for i in order)


def _of_numbers(
    column: Any, class_names: Sequence[str] | None, where: Callable[[int], str]
) -> tuple[IntArray, tuple[str, ...]]:
    labels = column.fill_null(0).to_numpy(zero_copy_only=False)
    n_classes = MOST_CLASSES if class_names is None else len(class_names)
    outside = (labels < UNLABELLED) | (labels >= n_classes)
    if outside.any():
        row = int(np.argmax(outside))
        if class_names is None or not UNLABELLED <= labels[row] < MOST_CLASSES:
            raise SourceError(f"{where(row)}: label {labels[row]} is no class number, those are 0 to 2**24 - 1")
        raise LabelError(
            f"{where(row)}: label {labels[row]} is outside the {n_classes} classes: "
            "give the class names that these labels were made for"
        )
    labels = labels.astype(np.int64)
    labels[np.asarray(column.is_null())] = UNLABELLED
    if class_names is not None:
        return labels, tuple(class_names)
    largest = int(labels.max(initial=UNLABELLED))
    if is_hardly_a_class(largest, len(labels)):
        raise SourceError(
            f"{where(int(np.argmax(labels)))}: label {largest} among {len(labels)} rows is hardly a class number: "
            "give the class names where it is one"
        )
    return labels, tuple(map(str, range(largest + 1)))
