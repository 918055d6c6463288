"""A plane in which a handful of classes can be told apart."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from ltstore.errors import DataError
from ltstore.report.data import RowMap
from ltstore.rng import stream
from ltstore.types import BoolArray, DoubleArray, FloatArray, IntArray

MAX_POINTS = 2000
_MAX_COMPONENTS = 32  # LDA on more dimensions than rows would separate anything


def row_map(
    real_X: FloatArray,
    real_labels: IntArray,
    synthetic_X: FloatArray | None,
    synthetic_labels: IntArray | None,
    class_ids: IntArray,
    *,
    max_points: int = MAX_POINTS,
    seed: int = 0,
) -> RowMap:
    """Lay real and synthetic rows of some classes out in the plane that separates the real ones best.

    The plane is fitted on the real rows shown, each class weighing the same, so that synthetic rows cannot draw it
    toward themselves: shrunk LDA on the first principal components, or PCA where there are fewer than three
    classes or too few rows.

    Parameters
    ----------
    real_X : (N, D) float32
        Not modified; rows of other classes are ignored.
    real_labels : (N,) int64
    synthetic_X : (n, D) float32 or None
    synthetic_labels : (n,) int64 or None
    class_ids : (c,) int64
        The classes to show, e.g. some tail classes and their donors.
    max_points : int
        Rows shown at most (at least one of every class): only those with more than their share give up rows.
    seed : int
        Chooses the rows where there are too many.

    Raises
    ------
    DataError
        Fewer than two real rows in the chosen classes.

    Notes
    -----
    Deterministic: the signs of the axes are fixed. Half a second for 2,000 rows of 1,280 numbers.

    References
    ----------
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    classes = np.unique(np.asarray(class_ids, np.int64))
    real = np.flatnonzero(np.isin(real_labels, classes))
    if len(real) < 2:
        raise DataError(
            f"a map needs at least two real rows of the classes {classes.tolist()}, found {len(real)}"
        )
    made = np.empty(0, np.int64)
    if synthetic_X is not None and synthetic_labels is not None:
        made = np.flatnonzero(np.isin(synthetic_labels, classes))
    labels = np.asarray(real_labels, np.int64)[real]
    if synthetic_labels is not None:
        labels = np.concatenate([labels, np.asarray(synthetic_labels, np.int64)[made]])
    synthetic = np.arange(len(labels)) >= len(real)
    shown = _thin(2 * labels + synthetic, max_points, seed)  # real and synthetic rows of a class share alike
    labels, synthetic = labels[shown], synthetic[shown]
    X = real_X[real[shown[~synthetic]]]
    if synthetic_X is not None:
        X = np.concatenate([X, synthetic_X[made[shown[synthetic] - len(real)]]])
    points, method = _project(np.asarray(X, np.float64), labels, synthetic, seed)
    return RowMap(
        points=points, class_ids=labels, synthetic=synthetic, method=method, n_rows=len(real) + len(made)
    )


def _thin(groups: IntArray, limit: int, seed: int) -> IntArray:
    """Return at most `limit` positions, ascending: groups above a common size are cut down to it, at random."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(groups) <= limit:
        return np.arange(len(groups))
    fitting = [size for size in range(1, int(sizes.max())) if np.minimum(sizes, size).sum() <= limit]
    share = max(fitting, default=1)
    order = stream(seed, "report.map").permutation(len(groups))
    order = order[np.argsort(group[order], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[rank < share])


def _project(X: DoubleArray, labels: IntArray, synthetic: BoolArray, seed: int) -> tuple[DoubleArray, str]:
    from sklearn.utils.extmath import randomized_svd

    real = ~synthetic
    n_real, n_classes = int(real.sum()), len(np.unique(labels[real]))
    X = X - X[real].mean(axis=0)
    n_components = max(min(_MAX_COMPONENTS, n_real - 1, X.shape[1]), 1)
    _, scale, axes = randomized_svd(X[real], n_components, random_state=seed)
    Z = X @ axes[scale > 1e-9 * max(scale[0], 1e-300)].T
    method = "principal components"
    if n_classes >= 3 and n_real > 2 * n_classes and Z.shape[1] >= 2:
        with suppress(np.linalg.LinAlgError):  # rows of a class that are all alike have no spread to whiten
            Z = Z @ _discriminants(Z[real], labels[real])
            method = "linear discriminants"
    points = np.zeros((len(X), 2))
    points[:, : Z.shape[1]] = Z[:, :2]
    farthest = points[np.abs(points).argmax(axis=0), np.arange(2)]  # an axis points to its farthest row
    points *= np.where(farthest < 0, -1.0, 1.0)
    return points, method


def _discriminants(Z: DoubleArray, labels: IntArray) -> DoubleArray:
    """Return (d, 2): the directions in which class means lie farthest apart, in units of the spread within classes.

    The spread is pooled over all rows, so that a class of one row does no harm.
    """
    from scipy.linalg import eigh
    from sklearn.covariance import ledoit_wolf

    classes, place = np.unique(labels, return_inverse=True)
    means = np.stack([Z[place == c].mean(axis=0) for c in range(len(classes))])
    within, _ = ledoit_wolf(Z - means[place], assume_centered=True)
    _, directions = eigh(np.cov(means.T, bias=True), within)
    top: DoubleArray = directions[:, :-3:-1]
    return top
