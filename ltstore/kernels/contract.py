"""What the fused softmax kernel computes, and the checks that every backend relies on.

With C = len(offsets), x the C columns of logits from `first` on, y the label of row i, e_y its unit vector and s the
mass that smoothing gives to the classes (zeros where there is none):

    z = x + offsets - margins[y] e_y,    p = softmax(z) along the classes,    t = (1 - sum s) e_y + s

    loss_i = logsumexp(z_i) - sum_c t[c] z_i[c]             the cross entropy of p against t
    loss   = sum_i weights_i * loss_i                       returned, a float
    x[i, c] <- weights_i * (p[i, c] - t[c])                 in place

Offsets carry the bias of the classifier and the logit adjustment tau * log q; margins are a handicap that the logit of
a row's own label has while training; smoothing leaves out, with mass 0, classes that offsets take out. Columns
outside the C are neither read nor written: several heads share one matrix of logits.

Laws that follow and that the contract tests hold every backend to: adding a constant to a row's logits
changes nothing; permuting rows or classes permutes the gradient; the losses of two halves add up; the
gradient sums to zero over the classes; weight 2 is the same as the row twice. A logit that is NaN or
+inf, or -inf at the label, gives a loss that is not finite: a backend never hides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import ConfigError, DataError, LabelError
from ltstore.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class SoftmaxTerms:
    """What the softmax of a head has besides its logits, the same for every row.

    Attributes
    ----------
    offsets : (C,) float32
        Added to every row: bias and logit adjustment.
    margins : (C,) float32, optional
        Taken from the own logit of the rows of each class.
    smoothing : (C,) float32, optional
        Share of the target of every row that each class gets whatever the label; its sum is below 1, the label
        gets the rest.
    """

    offsets: FloatArray
    margins: FloatArray | None = None
    smoothing: FloatArray | None = None


class SoftmaxGradient(Protocol):
    """A backend: the definition above on arguments that `check_arguments` has accepted."""

    def __call__(
        self,
        logits: FloatArray,
        labels: IntArray,
        terms: SoftmaxTerms,
        weights: FloatArray | None,
        first: int = 0,
    ) -> float:
        """Overwrite C columns of `logits` with the gradient and return the summed loss."""


def check_arguments(
    logits: FloatArray, labels: IntArray, terms: SoftmaxTerms, weights: FloatArray | None, first: int
) -> None:
    """Raise where a compiled loop would otherwise read or write outside its arrays.

    Parameters
    ----------
    logits : (n, L) float32, C-contiguous, writeable
    labels : (n,) int64, each in [0, C)
    terms : SoftmaxTerms
    weights : (n,) float32, or None for ones
    first : int
        0 <= first <= L - C.

    Raises
    ------
    DataError
        A shape, dtype or layout differs.
    ConfigError
        Smoothing is negative or leaves the label nothing.
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
    n, n_columns = logits.shape
    n_classes = n_columns if terms.offsets.ndim != 1 else len(terms.offsets)
    expected: list[tuple[str, NDArray[Any] | None, tuple[int, ...], type]] = [
        ("labels", labels, (n,), np.int64),
        ("offsets", terms.offsets, (n_classes,), np.float32),
        ("margins", terms.margins, (n_classes,), np.float32),
        ("smoothing", terms.smoothing, (n_classes,), np.float32),
        ("weights", weights, (n,), np.float32),
    ]
    for name, array, shape, dtype in expected:
        if array is not None and (array.shape != shape or array.dtype != dtype):
            raise DataError(
                f"{name} must be {shape} of {np.dtype(dtype)}, found {array.shape} of {array.dtype}"
            )
    if not 0 <= first <= n_columns - n_classes:
        raise DataError(
            f"logits must be (n, C) with the C = {n_classes} columns of the offsets from {first} on, found {n_columns}"
        )
    smoothing = terms.smoothing
    if smoothing is not None and not ((smoothing >= 0).all() and smoothing.sum() < 1):
        raise ConfigError("smoothing must be non-negative with a sum below 1: the label gets the rest")
    if n and (labels.min() < 0 or labels.max() >= n_classes):
        where = int(np.argmax((labels < 0) | (labels >= n_classes)))
        raise LabelError(f"label {labels[where]} of row {where} is outside the {n_classes} classes")
