"""Whether the probability given to a prediction is the share of such predictions that are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ltstore.errors import ConfigError, DataError
from ltstore.metrics.accuracy import ratio
from ltstore.types import DoubleArray, IntArray

RELIABILITY_BINS = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityBins:
    """Predictions by their confidence: the bars of a reliability diagram.

    Attributes
    ----------
    edges : (b + 1,) float64
        Bin i holds the rows with edges[i] < confidence <= edges[i + 1], the first bin those at its lower edge too.
    counts : (b,) int64
        Rows of each bin.
    confidence, accuracy : (b,) float64
        Mean confidence and share of right rows; NaN in a bin without rows.
    """

    edges: DoubleArray
    counts: IntArray
    confidence: DoubleArray
    accuracy: DoubleArray

    @property
    def error(self) -> float:
        """Expected calibration error: sum over bins b of (n_b / N) * abs(accuracy_b - confidence_b)."""
        return float(np.nansum(self.counts * np.abs(self.accuracy - self.confidence)) / self.counts.sum())

    def to_json(self) -> dict[str, list[Any]]:
        """Return JSON values, None for NaN."""
        return {
            name: [None if number != number else number for number in column.tolist()]
            for name, column in vars(self).items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, list[Any]]) -> ReliabilityBins:
        """Build bins from `to_json`'s dict; unknown or missing keys raise TypeError."""
        return cls(
            **{name: np.array(column, np.int64 if name == "counts" else float) for name, column in data.items()}
        )


def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = RELIABILITY_BINS, *, equal_mass: bool = False
) -> ReliabilityBins:
    """Sort predictions into bins by their confidence.

    Parameters
    ----------
    confidence : (N,) floats in [0, 1]
        The probability given to the predicted class.
    correct : (N,) bool
        Whether the prediction is right.
    n_bins : int
        At least 1.
    equal_mass : bool
        Edges at quantiles of the confidence, so that bins hold about as many rows each (fewer bins where many rows are
        of equal confidence), in place of bins of equal width.

    Raises
    ------
    DataError
        No rows, lengths differ, or a confidence that is NaN or outside [0, 1].

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2. Nguyen and O'Connor, "Posterior
    calibration and exploratory analysis for natural language processing models", EMNLP 2015 (bins of equal mass).
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
    steps = np.arange(n_bins + 1) / n_bins
    if equal_mass:
        inner = np.unique(np.quantile(p, steps[1:-1], method="inverted_cdf"))
        edges = np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]])
    else:
        edges = steps
    bins = np.searchsorted(edges[1:-1], p, side="left")
    counts = np.bincount(bins, minlength=len(edges) - 1).astype(np.int64, copy=False)
    return ReliabilityBins(
        edges=edges,
        counts=counts,
        confidence=ratio(np.bincount(bins, weights=p, minlength=len(counts)), counts),
        accuracy=ratio(np.bincount(bins, weights=right, minlength=len(counts)), counts),
    )


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = RELIABILITY_BINS
) -> float:
    """Return the gap between confidence and accuracy, averaged over the rows of bins of equal width.

    `reliability_bins(confidence, correct, n_bins).error`; parameters and errors are its.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 5.
    """
    return reliability_bins(confidence, correct, n_bins).error
