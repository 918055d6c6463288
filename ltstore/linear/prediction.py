"""Apply a model to rows, block by block, after checking that they are rows it understands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ltstore.errors import ConfigError, EncoderMismatchError
from ltstore.linear.model import LinearModel
from ltstore.rows import BLOCK_ROWS, iter_blocks
from ltstore.types import FloatArray, IntArray, Rows


class TopPredictions(NamedTuple):
    """The best classes of every row.

    Attributes
    ----------
    labels : (N, k) int64
        Best first; of equal logits the lower class first.
    probabilities : (N, k) float32
    """

    labels: IntArray
    probabilities: FloatArray


def check_rows(model: LinearModel, rows: Rows) -> None:
    """Raise EncoderMismatchError unless `rows` have the encoder and the normalization of the model."""
    if rows.encoder.digest != model.encoder.digest:
        raise EncoderMismatchError(
            "the rows come from another encoder than the model's (rows / model): "
            f"{'; '.join(rows.encoder.differences(model.encoder))}: embed them with the model's encoder"
        )
    if rows.normalized != model.normalized:
        word = {True: "unit-norm", False: "unnormalized"}
        raise EncoderMismatchError(
            f"the model was trained on {word[model.normalized]} rows and these are {word[rows.normalized]}: "
            f"open them with normalize={model.normalized}"
        )


def predict_rows(
    model: LinearModel, rows: Rows, block_rows: int = BLOCK_ROWS
) -> Iterator[tuple[int, FloatArray]]:
    """Return an iterator of (start, logits) over all rows in order; logits (n, C) float32 are new each time.

    Raises
    ------
    EncoderMismatchError
        At once, before the first block: the rows are of another encoder or normalization.
    ConfigError
        block_rows is below 1.
    """
    check_rows(model, rows)
    if block_rows < 1:
        raise ConfigError(f"block_rows must be at least 1, found {block_rows}")
    return ((start, model.decision_function(X)) for start, X, _ in iter_blocks(rows, block_rows))


def predict_top(model: LinearModel, rows: Rows, k: int = 1, block_rows: int = BLOCK_ROWS) -> TopPredictions:
    """Return the k best classes of every row with their probabilities; fewer where there are fewer classes.

    Raises
    ------
    EncoderMismatchError
        The rows are of another encoder or normalization.
    ConfigError
        k or block_rows is below 1.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, found {k}")
    k = min(k, model.n_classes)
    labels = np.empty((rows.n_samples, k), np.int64)
    probabilities = np.empty((rows.n_samples, k), np.float32)
    for start, logits in predict_rows(model, rows, block_rows):
        stop = start + len(logits)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        chosen = np.take_along_axis(logits, best, axis=1)
        top = chosen[:, :1]
        total = np.exp(logits - top).sum(axis=1, keepdims=True)
        labels[start:stop] = best
        probabilities[start:stop] = np.exp(chosen - top) / total
    return TopPredictions(labels, probabilities)
