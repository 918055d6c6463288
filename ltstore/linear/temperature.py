"""How sure a head is: its logits times the factor under which their softmax explains rows best; predictions stay."""

from __future__ import annotations

import numpy as np

from ltstore.linear.objective import EMPTY_CLASS_BIAS
from ltstore.types import UNLABELLED, DoubleArray, Rows

_MOST_ROWS = 4096
_LOG_FACTORS = (-9.0, 9.0)


def best_factor(weight: DoubleArray, bias: DoubleArray, rows: Rows, *, held_out: bool = True) -> float:
    """Return the factor of the logits (one over the temperature) of the largest likelihood, classes weighing the same.

    Parameters
    ----------
    weight, bias : (C, D), (C,) float64
    rows : Rows
        At most 4,096 of those whose class the head knows, evenly spaced, are looked at.
    held_out : bool
        Whether the head has not been trained on them.

    Returns
    -------
    float
        1 where they tell nothing: there are none, or they are held out and all are classified rightly, so that surer is
        always better.

    References
    ----------
    Guo et al. 2017, "On calibration of modern neural networks", temperature scaling.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    known = np.flatnonzero((rows.labels != UNLABELLED) & (bias[rows.labels] != EMPTY_CLASS_BIAS))
    if not len(known):
        return 1.0
    positions = known[np.unique(np.linspace(0, len(known) - 1, _MOST_ROWS).astype(np.int64))]
    labels = rows.labels[positions]
    logits = rows.take(positions) @ weight.T + bias
    if held_out and (logits.argmax(axis=1) == labels).all():
        return 1.0
    weights = 1.0 / np.bincount(labels, minlength=len(bias))[labels]
    right = logits[np.arange(len(labels)), labels]

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        return float(weights @ (logsumexp(factor * logits, axis=1) - factor * right))

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_FACTORS, method="bounded").x))


def scaled(weight: DoubleArray, bias: DoubleArray, factor: float) -> tuple[DoubleArray, DoubleArray]:
    """Return weight and bias times a factor, new; a class that is empty stays empty."""
    return factor * weight, np.where(bias == EMPTY_CLASS_BIAS, EMPTY_CLASS_BIAS, factor * bias)
