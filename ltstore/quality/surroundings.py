"""What rows lie among: the classes of their nearest real rows, and how near the nearest is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltstore.errors import DataError
from ltstore.neighbors import ExactIndex, RestrictedIndex
from ltstore.types import BoolArray, Donors, DoubleArray, FloatArray, IntArray, Rows

SPACING_ROWS = 256
"""Most rows of a class that its spacing is taken of, evenly spaced."""
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundings:
    """Of n rows, each of a class: what their nearest real rows say.

    Attributes
    ----------
    purity : (n,) float64
        Share of the nearest real rows, own ones left out, that are of the row's class. As many are looked at as
        the class has left, at most k: NaN where that is none.
    intruder : (n,) int64
        Class of the nearest real row, own ones left out, where it is another class; -1 where it is the same; -2
        where the class has no row left that it could have been, or there is no other row at all.
    nearest, nearest_other : (n,) float64
        Distance to the nearest real row, own ones among them, and left out; NaN where there is none.
    """

    purity: DoubleArray
    intruder: IntArray
    nearest: DoubleArray
    nearest_other: DoubleArray


def surroundings(
    index: RestrictedIndex, rows: Rows, X: FloatArray, class_ids: IntArray, own_ids: IntArray, k: int
) -> Surroundings:
    """Look at the nearest labelled real rows of each row.

    Parameters
    ----------
    index : RestrictedIndex
        Of `rows`, with metric "l2".
    rows : Rows
        The real rows.
    X : (n, D) float32
    class_ids : (n,) int64
    own_ids : (n, p) int64
        Row ids that do not speak for a row, -1 for none: its parents, or itself. They are left out by id: an equal
        row stays.
    k : int
        Nearest rows looked at, at most.

    Raises
    ------
    DataError
        The index is of another metric.

    Notes
    -----
    One search of k + p neighbours: 2 n N D flops.
    """
    if index.metric != "l2":
        raise DataError(f"surroundings are measured by an index of metric 'l2', found {index.metric!r}")
    n = len(X)
    labels = rows.labels
    among = None if (labels >= 0).all() else labels >= 0
    ids, _ = index.search(X, k + own_ids.shape[1], among=among)
    classes = np.where(ids < 0, -1, labels[_positions(rows, ids)])
    other = (ids >= 0) & ~(ids[:, :, None] == own_ids[:, None, :]).any(axis=2)
    own_classes = np.where(own_ids < 0, -1, labels[_positions(rows, own_ids)])
    counts = np.bincount(labels[labels >= 0], minlength=len(rows.class_names))
    left = counts[class_ids] - _distinct(own_ids, own_classes == class_ids[:, None])
    looked_at = np.minimum(left, k)
    counted = other & (np.cumsum(other, axis=1) <= looked_at[:, None])
    agree = (counted & (classes == class_ids[:, None])).sum(axis=1)
    purity = np.divide(agree, looked_at, out=np.full(n, np.nan), where=looked_at > 0)
    first = other.argmax(axis=1)[:, None]
    found = np.take_along_axis(other, first, axis=1)[:, 0]
    nearest_class = np.take_along_axis(classes, first, axis=1)[:, 0]
    intruder = np.where(nearest_class == class_ids, -1, nearest_class)
    return Surroundings(
        purity=purity,
        intruder=np.where(found & (left > 0), intruder, -2).astype(np.int64),
        nearest=_apart(rows, X, ids[:, 0]),
        nearest_other=_apart(rows, X, np.where(found, np.take_along_axis(ids, first, axis=1)[:, 0], -1)),
    )


def class_spacing(rows: Rows, class_ids: IntArray, donors: Donors | None = None) -> DoubleArray:
    """Return (C,) how far a real row of a class typically is from its nearest one: the median over the class's rows.

    A class of one row has the mean of its donors', by their weights; where it has no donors, or they have none,
    the median over classes; NaN where no class has two rows, and for classes without rows. Copies that are in the
    data count: a class of identical rows has spacing 0.

    Parameters
    ----------
    rows : Rows
    class_ids : (m,) int64
        Classes wanted; the others are NaN, but for donors and what pooling needs.
    donors : Donors, optional

    Notes
    -----
    2 n^2 D flops in float64 for a class of n rows, at most 512 n D.
    """
    labels = rows.labels
    n_classes = len(rows.class_names)
    counts = np.bincount(labels[labels >= 0], minlength=n_classes)
    index = ExactIndex(rows, "l2")
    wanted = set(np.asarray(class_ids).tolist())
    single = [c for c in wanted if counts[c] == 1]
    if single:  # they borrow
        lent = donors.class_ids[single].ravel() if donors is not None else np.zeros(0, np.int64)
        wanted |= set(lent[lent >= 0].tolist())
    own = np.full(n_classes, np.nan)
    for c in sorted(wanted):
        positions = np.flatnonzero(labels == c)
        if len(positions) < 2:
            continue
        some = positions[np.unique(np.linspace(0, len(positions) - 1, SPACING_ROWS).astype(np.int64))]
        ids = rows.row_ids[some]
        X = rows.take(some)
        found, _ = index.search(X, 1, exclude=ids, among=rows.row_ids[positions])
        own[c] = np.median(_apart(rows, X, found[:, 0]))
    spacing = own.copy()
    known: BoolArray = np.isfinite(own)
    for c in single:
        spacing[c] = np.median(own[known]) if known.any() else np.nan
        if donors is not None:
            lenders = donors.class_ids[c]
            weights = np.where((lenders >= 0) & known[lenders], donors.weights[c], 0.0)
            if weights.sum() > 0:
                spacing[c] = np.average(np.where(weights > 0, own[lenders], 0.0), weights=weights)
    return spacing


def _apart(rows: Rows, X: FloatArray, ids: IntArray) -> DoubleArray:
    """Return (n,) distances to the rows of these ids; below rounding error they are 0, without an id NaN.

    An index has them of products, where equal rows are some 1e-4 apart.
    """
    wide = X.astype(np.float64)
    apart = np.linalg.norm(wide - rows.take(_positions(rows, ids)), axis=1)
    apart[apart <= _ROUNDING * np.linalg.norm(wide, axis=1)] = 0.0
    return np.where(ids < 0, np.nan, apart)


def _positions(rows: Rows, ids: IntArray) -> IntArray:
    """Positions of row ids; any position for -1."""
    return np.minimum(np.searchsorted(rows.row_ids, ids), max(rows.n_samples - 1, 0)).astype(np.int64)


def _distinct(ids: IntArray, counted: BoolArray) -> IntArray:
    """Return (n,) how many different ids of a row are counted and not -1."""
    n: IntArray = np.zeros(len(ids), np.int64)
    for j in range(ids.shape[1]):
        before = (ids[:, :j] == ids[:, j : j + 1]).any(axis=1)
        n += counted[:, j] & (ids[:, j] >= 0) & ~before
    return n
