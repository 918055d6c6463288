"""Rows that training never sees, to judge its points on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ltstore.errors import DataError, EncoderMismatchError
from ltstore.metrics import class_accuracy
from ltstore.rows import class_counts, iter_blocks
from ltstore.types import UNLABELLED, FloatArray, Rows


class HoldoutScore(NamedTuple):
    """How a head does on the holdout.

    Attributes
    ----------
    accuracy : float
        Share of rows that are right.
    balanced : float
        Mean over the classes that have rows of the share that is right.
    """

    accuracy: float
    balanced: float


class Holdout:
    """Labelled rows of a holdout.

    Parameters
    ----------
    rows : Rows
        Unlabelled ones are left out.
    like : Rows
        The rows that are trained on.

    Raises
    ------
    DataError
        No row has a label, or the classes are others.
    EncoderMismatchError
        Encoder or normalization are others.
    """

    def __init__(self, rows: Rows, like: Rows) -> None:
        if rows.class_names != like.class_names:
            raise DataError("the holdout has other classes than the training rows: take it from the same store")
        if rows.encoder.digest != like.encoder.digest or rows.normalized != like.normalized:
            raise EncoderMismatchError(
                "the holdout has another encoder or normalization than the training rows: "
                f"{'; '.join(rows.encoder.differences(like.encoder)) or 'normalization'}"
            )
        if not class_counts(rows).any():
            raise DataError("the holdout has no labelled rows: choose a larger share, or other rows")
        self.rows = rows

    def score(self, weight: FloatArray, bias: FloatArray) -> HoldoutScore:
        """Judge the head X @ weight.T + bias; one pass over the holdout."""
        predictions = np.concatenate(
            [(X @ weight.T + bias).argmax(axis=1) for _, X, _ in iter_blocks(self.rows)]
        )
        labels = self.rows.labels
        known = labels != UNLABELLED
        by_class = class_accuracy(labels, predictions, len(bias))
        return HoldoutScore(float((labels == predictions)[known].mean()), float(np.nanmean(by_class)))
