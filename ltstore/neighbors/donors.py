"""Which head classes lend to which tail classes, from class means or from the nearest rows."""

from __future__ import annotations

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.neighbors.metric import RestrictedIndex
from ltstore.rows import BLOCK_ROWS
from ltstore.types import BoolArray, Donors, DoubleArray, IntArray, Rows

LEND_RATIO = 2


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


def may_lend(counts: IntArray) -> BoolArray:
    """Return (borrower, donor) pairs that are allowed: a head class with LEND_RATIO times the rows, or more.

    Notes
    -----
    (C, C) bool: 66 MB for 8,142 classes.
    """
    allowed: BoolArray = (
        head_classes(counts)[None, :]
        & (counts > 0)[:, None]
        & (counts[None, :] >= LEND_RATIO * counts[:, None])
    )
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
    """
    if k < 1 or not temperature > 0:
        raise ConfigError(f"k must be at least 1 and temperature positive, found {k} and {temperature}")
    means, counts = np.asarray(means, np.float64), np.asarray(counts, np.int64)
    if means.ndim != 2 or counts.shape != means.shape[:1]:
        raise DataError(f"means (C, D) and counts (C,) do not fit: {means.shape} and {counts.shape}")
    unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    similarity = np.where(may_lend(counts), unit @ unit.T, -np.inf)
    peak = similarity.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp((similarity - np.where(np.isneginf(peak), 0.0, peak)) / temperature)
    return _best(similarity, weights, similarity, counts, k)


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
    rows of all classes that can borrow; memory 64 bytes for each of C^2 class pairs at most.
    """
    counts = np.asarray(counts, np.int64)
    if k < 1 or k_rows < 1:
        raise ConfigError(f"k and k_rows must be at least 1, found {k} and {k_rows}")
    if index.metric == "l2":
        raise ConfigError('row_donors needs similarities: build the index with metric "cosine"')
    if not np.array_equal(index.row_ids, rows.row_ids):
        raise DataError("the index is not of these rows: build it from them")
    labels, n_classes = rows.labels, len(counts)
    allowed = may_lend(counts)
    borrows = allowed.any(axis=1)
    head = np.append(head_classes(counts), False)  # the last entry is for label -1
    borrowers = np.flatnonzero(np.append(borrows, False)[labels])
    votes, similarity = np.zeros((n_classes, n_classes)), np.zeros((n_classes, n_classes))
    for start in range(0, len(borrowers), BLOCK_ROWS):
        positions = borrowers[start : start + BLOCK_ROWS]
        ids, close = index.search(
            rows.take(positions), k_rows, exclude=rows.row_ids[positions], among=head[labels]
        )
        found = ids >= 0
        voter = np.broadcast_to(labels[positions][:, None], ids.shape)[found]
        donor = labels[np.searchsorted(rows.row_ids, ids[found])]
        np.add.at(votes, (voter, donor), 1.0)
        np.add.at(similarity, (voter, donor), close[found])
    votes[~allowed] = 0.0
    mean = np.divide(similarity, votes, out=np.full_like(votes, -np.inf), where=votes > 0)
    # Among classes with equal votes the more similar comes first; a cosine cannot outweigh one vote.
    rank = np.where(votes > 0, votes + np.clip(mean, -1, 1) / 4, -np.inf)
    return _best(rank, np.where(votes > 0, votes, 0.0), mean, counts, k)


def _best(rank: DoubleArray, weights: DoubleArray, similarity: DoubleArray, counts: IntArray, k: int) -> Donors:
    """Keep the k donors of highest rank, smaller class ids first among equals; rank -inf means no donor."""
    order = np.argsort(-rank, axis=1, kind="stable")[:, :k]
    none = np.isneginf(np.take_along_axis(rank, order, axis=1))
    lent = np.where(none, 0.0, np.take_along_axis(weights, order, axis=1))
    total = lent.sum(axis=1, keepdims=True)
    lent = np.divide(lent, total, out=np.zeros_like(lent), where=total > 0)
    cosine = np.where(none, np.nan, np.take_along_axis(similarity, order, axis=1))
    missing = ((0, 0), (0, k - order.shape[1]))
    return Donors(
        class_ids=np.pad(np.where(none, -1, order), missing, constant_values=-1).astype(np.int64),
        weights=np.pad(lent, missing),
        similarity=np.pad(cosine, missing, constant_values=np.nan),
        head=head_classes(counts),
    )
