"""Nearest classes, by their means: the same questions as of rows."""

from __future__ import annotations

import numpy as np

from ltstore.errors import DataError
from ltstore.neighbors.exact import ExactIndex
from ltstore.rows import ArrayRows
from ltstore.types import DoubleArray, IntArray


def class_index(means: DoubleArray, counts: IntArray, metric: str = "cosine") -> ExactIndex:
    """Return an index over the means of the classes that have rows; its row ids are class ids.

    Parameters
    ----------
    means : (C, D) float64
        As in `ltstore.types.Moments`.
    counts : (C,) int64
    metric : "cosine", "inner_product" or "l2"

    Raises
    ------
    DataError
        Shapes differ.
    """
    means, counts = np.asarray(means), np.asarray(counts)
    if means.ndim != 2 or counts.shape != means.shape[:1]:
        raise DataError(f"means (C, D) and counts (C,) do not fit: {means.shape} and {counts.shape}")
    ids = np.flatnonzero(counts)
    return ExactIndex(ArrayRows(means[ids], ids, row_ids=ids), metric)
