"""Top-1 accuracy by class and by group of training size, and who is taken for whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ltstore.errors import ConfigError, DataError, LabelError
from ltstore.types import UNLABELLED, BoolArray, DoubleArray, IntArray

GROUPS = ("many", "medium", "few")
MANY_ABOVE = 100
FEW_BELOW = 20
DENSE_CONFUSION_CLASSES = 2048  # 32 MB of int64


def count_groups(counts: ArrayLike) -> dict[str, BoolArray]:
    """Divide the classes by how many training rows they have.

    Parameters
    ----------
    counts : (C,) ints
        Training rows of each class.

    Returns
    -------
    dict of str to (C,) bool
        "many" (more than 100 rows), "medium" (20 to 100), "few" (fewer than 20). Every class is in exactly one;
        classes with no training row are in "few".

    References
    ----------
    Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019, section 5.1.
    """
    sizes = np.asarray(counts)
    many, few = sizes > MANY_ABOVE, sizes < FEW_BELOW
    return {"many": many, "medium": ~many & ~few, "few": few}


def class_accuracy(labels: IntArray, predictions: IntArray, n_classes: int) -> DoubleArray:
    """Return (C,) float64: the share of each class's test rows that is predicted as it, NaN without test rows.

    Parameters
    ----------
    labels, predictions : (N,) ints
        Class ids in 0..C-1; rows labelled -1 (unknown) are skipped.
    n_classes : int
        C.

    Raises
    ------
    DataError
        Lengths differ, or an array is not one column of integers.
    LabelError
        A label or prediction lies outside the classes.

    Notes
    -----
    O(N + C) time and memory. Equals the diagonal of the row-normalised confusion matrix.
    """
    y, predicted, _ = labelled(labels, predictions, n_classes)
    correct = np.bincount(y[y == predicted], minlength=n_classes)
    return ratio(correct, np.bincount(y, minlength=n_classes))


def confusion(labels: IntArray, predictions: IntArray, n_classes: int) -> IntArray:
    """Return (C, C) int64: how many rows of class i (row) are predicted as class j (column).

    Parameters and errors are those of `class_accuracy`; besides, more than 2,048 classes raise ConfigError,
    because the matrix of 8,142 classes is half a gigabyte of zeros: use `confusion_pairs` there.
    """
    if n_classes > DENSE_CONFUSION_CLASSES:
        raise ConfigError(
            f"a dense confusion matrix is made for up to {DENSE_CONFUSION_CLASSES} classes, found {n_classes}: "
            "use confusion_pairs"
        )
    y, predicted, _ = labelled(labels, predictions, n_classes)
    cells = np.bincount(y * n_classes + predicted, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64, copy=False)


def confusion_pairs(
    labels: IntArray, predictions: IntArray, n_classes: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Return the non-zero cells of the confusion matrix as (true ids, predicted ids, counts), sorted by cell.

    Parameters and errors are those of `class_accuracy`. O(N log N) time, O(N) memory, whatever C.
    """
    y, predicted, _ = labelled(labels, predictions, n_classes)
    cells, counts = np.unique(y * n_classes + predicted, return_counts=True)
    return cells // n_classes, cells % n_classes, counts.astype(np.int64, copy=False)


def labelled(labels: ArrayLike, predictions: ArrayLike, n_classes: int) -> tuple[IntArray, IntArray, BoolArray]:
    """Check both columns and return (labels, predictions) of the labelled rows and which rows they are."""
    columns = {"labels": np.asarray(labels), "predictions": np.asarray(predictions)}
    y, predicted = columns.values()
    if y.ndim != 1 or y.shape != predicted.shape:
        raise DataError(
            f"labels and predictions must be columns of one length, found {y.shape} and {predicted.shape}"
        )
    kept = y != UNLABELLED
    for name, column in columns.items():
        if len(column) and column.dtype.kind not in "iu":
            raise DataError(f"{name} must be integers, found {column.dtype}")
        outside = kept & ((column < 0) | (column >= n_classes))
        if outside.any():
            row = int(np.argmax(outside))
            raise LabelError(f"{name}[{row}] is {column[row]}, outside the {n_classes} classes")
    return y[kept].astype(np.int64), predicted[kept].astype(np.int64), kept


def ratio(part: ArrayLike, whole: ArrayLike) -> DoubleArray:
    """Divide, NaN where the whole is 0."""
    numerator, denominator = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    share: DoubleArray = np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0
    )
    return share
