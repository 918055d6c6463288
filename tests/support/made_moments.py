"""Class moments for tests, straight from their definition (what `ltstore.stats` must equal)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltstore.types import DoubleArray, IntArray


@dataclass
class MadeMoments:
    """`ltstore.types.Moments` with an empty basis."""

    counts: IntArray
    means: DoubleArray
    pooled: DoubleArray
    basis: DoubleArray
    scatter: DoubleArray
    residual: DoubleArray


def made_moments(X, labels, n_classes):
    X = np.asarray(X, np.float64)
    counts = np.bincount(labels, minlength=n_classes).astype(np.int64)
    means = np.zeros((n_classes, X.shape[1]))
    np.add.at(means, labels, X)
    means /= np.maximum(counts, 1)[:, None]
    residuals = X - means[labels]
    pooled = residuals.T @ residuals / max(len(X) - int((counts > 0).sum()), 1)
    d = X.shape[1]
    return MadeMoments(
        counts, means, pooled, np.zeros((d, 0)), np.zeros((n_classes, 0, 0)), np.zeros((n_classes, d))
    )
