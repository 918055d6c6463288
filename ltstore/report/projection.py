"""A plane in which a handful of classes can be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from ltstore.errors import DataError
from ltstore.report.data import RowMap
from ltstore.rng import stream
from ltstore.types import DoubleArray, FloatArray, IntArray

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

    The plane is fitted on real rows alone, each class weighing the same, so that synthetic rows cannot draw it toward
    themselves: shrunk LDA on the first principal components, or PCA where there are fewer than three classes or
    too few rows.

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
        Rows shown at most; a class gives up rows only while it has more than its equal share.
    seed : int
        Chooses the rows where there are too many.

    Raises
    ------
    DataError
        Fewer than two real rows in the chosen classes.

    Notes
    -----
    Deterministic: the signs of the axes are fixed. Some milliseconds for a few thousand rows.

    References
    ----------
    Ledoit and Wolf, "Honey, I Shrunk the Sample Covariance Matrix", 2004 (the shrinkage of scikit-learn's LDA).
    """
    classes = np.unique(np.asarray(class_ids, np.int64))
    real = np.flatnonzero(np.isin(real_labels, classes))
    if len(real) < 2:
        raise DataError(
            f"a map needs at least two real rows of the classes {classes.tolist()}, found {len(real)}"
        )
    X, labels = np.asarray(real_X[real], np.float64), np.asarray(real_labels)[real]
    synthetic = np.zeros(len(X), bool)
    n_rows = len(X)
    if synthetic_X is not None and synthetic_labels is not None:
        made = np.flatnonzero(np.isin(synthetic_labels, classes))
        n_rows += len(made)
        made = _thin(made, np.asarray(synthetic_labels)[made], max_points, seed, "map.synthetic")
        X = np.concatenate([X, np.asarray(synthetic_X[made], np.float64)])
        labels = np.concatenate([labels, np.asarray(synthetic_labels)[made]])
        synthetic = np.concatenate([synthetic, np.ones(len(made), bool)])
    points, method = _project(X, labels, synthetic)
    groups = 2 * labels + synthetic  # real and synthetic rows of a class share alike
    shown = _thin(np.arange(len(X)), groups, max_points, seed, "map.rows")
    return RowMap(
        points=points[shown],
        class_ids=labels[shown].astype(np.int64),
        synthetic=synthetic[shown],
        method=method,
        n_rows=n_rows,
    )


def _thin(positions: IntArray, groups: IntArray, limit: int, seed: int, purpose: str) -> IntArray:
    """Keep at most `limit` positions: the groups above a common size are cut down to it, at random."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(positions) <= limit:
        return positions
    share = max(
        size for size in range(1, int(sizes.max()) + 1) if size == 1 or np.minimum(sizes, size).sum() <= limit
    )
    order = stream(seed, purpose).permutation(len(positions))
    order = order[np.argsort(group[order], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return positions[np.sort(order[rank < share])][:limit]


def _project(X: DoubleArray, labels: IntArray, synthetic: np.ndarray[Any, Any]) -> tuple[DoubleArray, str]:
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    real_X, real_labels = X[~synthetic], labels[~synthetic]
    n_classes = len(np.unique(real_labels))
    n_components = min(_MAX_COMPONENTS, len(real_X) - 1, X.shape[1])
    pca = PCA(max(n_components, 1), svd_solver="full").fit(real_X)
    Z = pca.transform(X)
    method = "principal components"
    if n_classes >= 3 and len(real_X) > 2 * n_classes and n_components >= 2:
        lda = LinearDiscriminantAnalysis(
            solver="eigen", shrinkage="auto", priors=np.full(n_classes, 1 / n_classes), n_components=2
        )
        Z = lda.fit(Z[~synthetic], real_labels).transform(Z)
        method = "linear discriminants"
    if Z.shape[1] < 2:
        Z = np.column_stack([Z, np.zeros(len(Z))])
    Z = Z[:, :2]
    largest = Z[np.abs(Z).argmax(axis=0), np.arange(2)]  # an axis points to its farthest row
    points: DoubleArray = Z * np.where(largest < 0, -1.0, 1.0)
    return points, method
