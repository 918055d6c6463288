"""Which head classes lend to which tail classes, from class means or from the nearest rows."""

from __future__ import annotations

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.neighbors.metric import RestrictedIndex
from ltstore.rows import BLOCK_ROWS
from ltstore.types import BoolArray, Donors, DoubleArray, IntArray, Rows

LEND_RATIO = 2
_BLOCK_CLASSES = 1024


def head_classes(counts: IntArray) -> BoolArray:
    """Return which classes may lend: those with at least the mean number of rows of the non-empty classes.

    The mean is free of scale (CIFAR-100-LT with imbalance 100: 108 rows, 33 classes; a set whose largest class
    has 60 rows has a head too) and moves with the imbalance, which a fixed bound such as "more than 100" does
    not. Where all classes are of one size every class is "head", and since a donor must have `LEND_RATIO` times
    the borrower's rows nobody borrows.

    Parameters
    ----------
    counts : (C,) int64

    Returns
    -------
    (C,) bool, new
    """
    nonempty = counts[counts > 0]
    if not len(nonempty):
        return np.zeros(len(counts), np.bool_)
    head: BoolArray = (counts > 0) & (counts >= nonempty.mean())
    return head


def _may_lend(borrowers: IntArray, lenders: IntArray) -> BoolArray:
    """Which pairs are allowed, by the rows of either: the lender has `LEND_RATIO` times the borrower's, or more."""
    allowed: BoolArray = (borrowers[:, None] > 0) & (lenders[None, :] >= LEND_RATIO * borrowers[:, None])
    return allowed


def class_donors(means: DoubleArray, counts: IntArray, *, k: int = 5, temperature: float = 0.1) -> Donors:
    """Choose each class's donors by the cosine between class means.

    Parameters
    ----------
    means : (C, D) float64
    counts : (C,) int64
    k : int
        At most this many donors a class.
    temperature : float
        > 0; weights are the softmax of similarity / temperature over the donors.

    Returns
    -------
    Donors
        A class without rows, or for which no class is large enough, has none: ids -1, weights 0.

    Raises
    ------
    ConfigError
        `k` below 1 or `temperature` not positive.
    DataError
        Shapes differ.

    Notes
    -----
    Time 2 C H D flops and C H log H comparisons for H head classes; memory 8 C D bytes and some 40 kB H.
    """
    if k < 1 or not temperature > 0:
        raise ConfigError(f"k must be at least 1 and temperature positive, found {k} and {temperature}")
    means, counts = np.asarray(means, np.float64), np.asarray(counts, np.int64)
    if means.ndim != 2 or counts.shape != means.shape[:1]:
        raise DataError(f"means (C, D) and counts (C,) do not fit: {means.shape} and {counts.shape}")
    unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    head = np.flatnonzero(head_classes(counts))
    donors = _no_donors(counts, k)
    for start in range(0, len(counts), _BLOCK_CLASSES):
        some = slice(start, start + _BLOCK_CLASSES)
        similarity = np.where(_may_lend(counts[some], counts[head]), unit[some] @ unit[head].T, -np.inf)
        peak = similarity.max(axis=1, keepdims=True, initial=-np.inf)
        weights = np.exp((similarity - np.where(np.isneginf(peak), 0.0, peak)) / temperature)
        _fill(donors, some, head, similarity, weights, similarity)
    return donors


def row_donors(index: RestrictedIndex, rows: Rows, counts: IntArray, *, k: int = 5, k_rows: int = 10) -> Donors:
    """Choose each class's donors by the votes of the head-class rows that are nearest to its own rows.

    Each row of a borrowing class finds its `k_rows` nearest rows among the head classes, itself removed by id;
    a donor's weight is its share of these votes, its similarity the mean similarity of its voting rows.

    Parameters
    ----------
    index : RestrictedIndex
        Over `rows`, with metric "cosine" or "inner_product".
    rows : Rows
    counts : (C,) int64
        Rows of each class in `rows`.
    k : int
        At most this many donors a class: those with most votes, the more similar first among equals.
    k_rows : int
        Neighbours of each row.

    Returns
    -------
    Donors

    Raises
    ------
    ConfigError
        `k` or `k_rows` below 1, or the index gives distances instead of similarities.
    DataError
        The index is of other rows.

    Notes
    -----
    Larger head classes have more rows and so more votes, which `class_donors` does not have. One search for the
    rows of all classes that can borrow; memory about 40 bytes for each pair of a class and a
    head class.
    """
    counts = np.asarray(counts, np.int64)
    if k < 1 or k_rows < 1:
        raise ConfigError(f"k and k_rows must be at least 1, found {k} and {k_rows}")
    if index.metric == "l2":
        raise ConfigError('row_donors needs similarities: build the index with metric "cosine"')
    if not np.array_equal(index.row_ids, rows.row_ids):
        raise DataError("the index is not of these rows: build it from them")
    labels = rows.labels
    is_head = head_classes(counts)
    head = np.flatnonzero(is_head)
    column = np.cumsum(is_head) - 1  # a head class's place in `head`
    allowed = _may_lend(counts, counts[head])
    lends_row = np.append(is_head, False)[labels]  # the last entry is for label -1
    borrowers = np.flatnonzero(np.append(allowed.any(axis=1), False)[labels])
    votes, similarity = np.zeros(allowed.shape), np.zeros(allowed.shape)
    for start in range(0, len(borrowers), BLOCK_ROWS):
        positions = borrowers[start : start + BLOCK_ROWS]
        ids, close = index.search(
            rows.take(positions), k_rows, exclude=rows.row_ids[positions], among=lends_row
        )
        found = ids >= 0
        voter = np.broadcast_to(labels[positions][:, None], ids.shape)[found]
        donor = column[labels[np.searchsorted(rows.row_ids, ids[found])]]
        np.add.at(votes, (voter, donor), 1.0)
        np.add.at(similarity, (voter, donor), close[found])
    votes[~allowed] = 0.0
    mean = np.divide(similarity, votes, out=similarity, where=votes > 0)
    # Among classes with equal votes the more similar comes first; a cosine cannot outweigh one vote.
    rank = np.where(votes > 0, votes + np.clip(mean, -1, 1) / 4, -np.inf)
    donors = _no_donors(counts, k)
    _fill(donors, slice(None), head, rank, votes, mean)
    return donors


def _no_donors(counts: IntArray, k: int) -> Donors:
    shape = (len(counts), k)
    return Donors(
        class_ids=np.full(shape, -1, np.int64),
        weights=np.zeros(shape),
        similarity=np.full(shape, np.nan),
        head=head_classes(counts),
    )


def _fill(
    donors: Donors,
    some: slice,
    head: IntArray,
    rank: DoubleArray,
    weights: DoubleArray,
    similarity: DoubleArray,
) -> None:
    """Enter, for some classes, the head classes (columns) of highest rank, smaller class ids first among equals.

    Rank -inf means no donor.
    """
    order = np.argsort(-rank, axis=1, kind="stable")[:, : donors.class_ids.shape[1]]
    none = np.isneginf(np.take_along_axis(rank, order, axis=1))
    lent = np.where(none, 0.0, np.take_along_axis(weights, order, axis=1))
    total = lent.sum(axis=1, keepdims=True)
    width = order.shape[1]
    donors.class_ids[some, :width] = np.where(none, -1, head[order])
    donors.weights[some, :width] = np.divide(lent, total, out=np.zeros_like(lent), where=total > 0)
    donors.similarity[some, :width] = np.where(none, np.nan, np.take_along_axis(similarity, order, axis=1))
