"""Precision, recall, density and coverage: whether made rows lie among real ones, and real ones among made.

The ball of a row reaches to its k-th nearest other row of the same set. All take (n, D) real and (m, D) made rows
of any float type, n and m above k, and cost 2 (n + m)^2 D flops at most.
"""

from __future__ import annotations

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.types import DoubleArray, FloatArray


def precision(real: FloatArray, made: FloatArray, k: int) -> float:
    """Return the share of made rows that lie in the ball of some real row.

    References
    ----------
    Kynkäänniemi et al. 2019, "Improved precision and recall metric for assessing generative models", equations 1 and 2.
    """
    return float((_distances(real, made) <= _radii(real, k)[:, None]).any(axis=0).mean())


def recall(real: FloatArray, made: FloatArray, k: int) -> float:
    """Return the share of real rows that lie in the ball of some made row: `precision` with the roles exchanged."""
    return precision(made, real, k)


def density(real: FloatArray, made: FloatArray, k: int) -> float:
    """Return how many balls of real rows a made row lies in on average, over k; about 1 for rows of the same law.

    References
    ----------
    Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models", equation 3.
    """
    return float((_distances(real, made) <= _radii(real, k)[:, None]).sum(axis=0).mean() / k)


def coverage(real: FloatArray, made: FloatArray, k: int) -> float:
    """Return the share of real rows whose ball holds some made row.

    For n real and m made rows of one law it is about 1 - (1 - m / (n + m))^k.

    References
    ----------
    Naeem et al. 2020, equation 4.
    """
    return float((_distances(real, made) <= _radii(real, k)[:, None]).any(axis=1).mean())


def _radii(X: FloatArray, k: int) -> DoubleArray:
    """Return (n,) distances to the k-th nearest of the other rows; a duplicate is another row."""
    if k < 1:
        raise ConfigError(f"k must be at least 1, found {k}")
    if len(X) <= k:
        raise DataError(f"the ball to the {k}-th nearest row needs more than {k} rows, found {len(X)}")
    found = _distances(X, X)
    np.fill_diagonal(found, np.inf)
    radii: DoubleArray = np.partition(found, k - 1, axis=1)[:, k - 1]
    return radii


def _distances(X: FloatArray, Y: FloatArray) -> DoubleArray:
    from scipy.spatial.distance import cdist

    distances: DoubleArray = cdist(np.asarray(X, np.float64), np.asarray(Y, np.float64))
    return distances
