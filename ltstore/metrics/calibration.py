"""Whether the probability given to a prediction is the share of such predictions that are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ltstore.errors import ConfigError, DataError


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, n_bins: int = 15) -> float:
    """Return the gap between confidence and accuracy, averaged over the rows of equal-width bins.

    sum over bins b of (n_b / N) * abs(accuracy_b - mean confidence_b), bins (i / n_bins, (i + 1) / n_bins].

    Parameters
    ----------
    confidence : (N,) floats in [0, 1]
        The probability given to the predicted class.
    correct : (N,) bool
        Whether the prediction is right.
    n_bins : int
        At least 1.

    Raises
    ------
    DataError
        No rows, lengths differ, or a confidence that is NaN or outside [0, 1].

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 5.
    """
    p, right = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if n_bins < 1:
        raise ConfigError(f"n_bins must be at least 1, found {n_bins}")
    if p.ndim != 1 or p.shape != right.shape or not len(p):
        raise DataError(
            f"confidence and correct must be columns of one length, found {p.shape} and {right.shape}"
        )
    if not ((p >= 0) & (p <= 1)).all():
        row = int(np.argmin((p >= 0) & (p <= 1)))
        raise DataError(
            f"confidence must be a probability, found {p[row]} in row {row}: give softmax, not logits"
        )
    bins = np.clip(np.ceil(p * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    return float(np.abs(np.bincount(bins, weights=right - p)).sum() / len(p))
