"""What the fused softmax kernel computes, and the checks that every backend relies on.

With z = logits + offsets and p = softmax(z) along the classes, for every row i of label y:

    loss_i = logsumexp(z_i) - z_i[y]
    loss   = sum_i weights_i * loss_i                       returned, a float
    logits[i, c] <- weights_i * (p[i, c] - [c == y])        in place

Offsets carry the bias of the classifier and the logit adjustment tau * log q.

Laws that follow and that the contract tests hold every backend to: adding a constant to a row's logits
changes nothing; permuting rows or classes permutes the gradient; the losses of two halves add up; the
gradient sums to zero over the classes; weight 2 is the same as the row twice. A logit that is NaN or
+inf, or -inf at the label, gives a loss that is not finite: a backend never hides it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import DataError, LabelError
from ltstore.types import FloatArray, IntArray


class SoftmaxGradient(Protocol):
    """A backend: the definition above on arguments that `check_arguments` has accepted."""

    def __call__(
        self, logits: FloatArray, labels: IntArray, offsets: FloatArray, weights: FloatArray | None
    ) -> float:
        """Overwrite `logits` with the gradient and return the summed loss."""


def check_arguments(
    logits: FloatArray, labels: IntArray, offsets: FloatArray, weights: FloatArray | None
) -> None:
    """Raise where a compiled loop would otherwise read or write outside its arrays.

    Parameters
    ----------
    logits : (n, C) float32, C-contiguous, writeable
    labels : (n,) int64, each in [0, C)
    offsets : (C,) float32
    weights : (n,) float32, or None for ones

    Raises
    ------
    DataError
        A shape, dtype or layout differs.
    LabelError
        A label is outside the classes.
    """
    if logits.ndim != 2 or logits.dtype != np.float32 or not logits.flags.c_contiguous:
        raise DataError(
            f"logits must be (n, C) float32 in C order, found {logits.shape} of {logits.dtype}: "
            "pass np.ascontiguousarray(logits, np.float32)"
        )
    if not logits.flags.writeable:
        raise DataError("logits are overwritten with the gradient and must be writeable: pass a copy")
    n, n_classes = logits.shape
    expected: list[tuple[str, NDArray[Any], tuple[int, ...], type]] = [
        ("labels", labels, (n,), np.int64),
        ("offsets", offsets, (n_classes,), np.float32),
    ]
    if weights is not None:
        expected.append(("weights", weights, (n,), np.float32))
    for name, array, shape, dtype in expected:
        if array.shape != shape or array.dtype != dtype:
            raise DataError(
                f"{name} must be {shape} of {np.dtype(dtype)}, found {array.shape} of {array.dtype}"
            )
    if n and (labels.min() < 0 or labels.max() >= n_classes):
        where = int(np.argmax((labels < 0) | (labels >= n_classes)))
        raise LabelError(f"label {labels[where]} of row {where} is outside the {n_classes} classes")
