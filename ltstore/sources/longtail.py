"""Subset rules: which rows a long-tailed cut or a holdout takes. Pure functions of labels and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike

from ltstore.errors import ConfigError, LabelError
from ltstore.rng import stream
from ltstore.types import UNLABELLED, IntArray


def long_tail_counts(n_rows: int, n_classes: int, imbalance: float = 100.0) -> IntArray:
    """Return (C,) exponentially falling class sizes, at least 1, that add up to about `n_rows`."""
    falling = imbalance ** -(np.arange(n_classes) / max(n_classes - 1, 1))
    counts: IntArray = np.maximum(np.rint(falling * (n_rows / falling.sum())), 1).astype(np.int64)
    return counts


def exp_cut(labels: ArrayLike, imbalance: float, *, n_classes: int | None = None, seed: int = 0) -> IntArray:
    """Return the rows of an exponential long-tailed cut, the same rows in the same order as LDAM-DRW's lists.

    Class i of C gets ``int(n_max * (1 / imbalance) ** (i / (C - 1)))`` rows, with n_max = (labelled rows) / C.
    With one legacy ``RandomState(seed)``, class after class, the class's row numbers are shuffled and the first
    of them taken. A class with fewer rows gives all it has; C = 1 gives n_max.

    Parameters
    ----------
    labels : (N,) ints
        UNLABELLED rows are never taken and not counted. Not modified.
    imbalance : float
        Largest over smallest class, >= 1. Values so large that int() gives 0 leave a class empty, as the
        published rule does.
    n_classes : int, optional
        C; default the largest label + 1.
    seed : int
        Below 2**32; 0 for the published lists.

    Returns
    -------
    (n,) int64 positions in `labels`, class after class and shuffled within a class (sort them where an
    ascending subset is wanted).

    Raises
    ------
    ConfigError
        `imbalance` is below 1 or not finite, `n_classes` below 1, or the seed out of range.
    LabelError
        A label is outside the classes.

    References
    ----------
    Cao et al. 2019, "Learning imbalanced datasets with label-distribution-aware margin loss", and its
    published code; Cui et al. 2019, "Class-balanced loss based on effective number of samples".
    """
    column, n_classes = _checked(labels, imbalance, n_classes)
    n_max = np.count_nonzero(column != UNLABELLED) / n_classes
    sizes = [int(n_max * (1 / imbalance) ** (i / max(n_classes - 1.0, 1.0))) for i in range(n_classes)]
    return _cut(column, sizes, seed)


def step_cut(labels: ArrayLike, imbalance: float, *, n_classes: int | None = None, seed: int = 0) -> IntArray:
    """Return the rows of a step cut: the first C // 2 classes get n_max rows, the others n_max / imbalance.

    Sizes are ``int(n_max)`` and ``int(n_max * (1 / imbalance))``; parameters, draws, errors and reference are
    those of `exp_cut`. With C = 1 the class is a head class.
    """
    column, n_classes = _checked(labels, imbalance, n_classes)
    n_max = np.count_nonzero(column != UNLABELLED) / n_classes
    n_head = max(n_classes // 2, 1)
    sizes = [int(n_max)] * n_head + [int(n_max * (1 / imbalance))] * (n_classes - n_head)
    return _cut(column, sizes, seed)


def stratified_holdout(labels: ArrayLike, fraction: float, *, seed: int = 0) -> tuple[IntArray, IntArray]:
    """Split the labelled rows into (train_positions, holdout_positions), class by class.

    Of a class with n rows, min(floor(fraction * n + 1/2), n - 1) are held out: every class keeps a train row,
    and a class of one row stays in train. The draw of a class depends on the seed and on that class alone.

    Parameters
    ----------
    labels : (N,) ints
        UNLABELLED rows are on neither side. Not modified.
    fraction : float
        Share to hold out, in the open interval (0, 1).
    seed : int

    Returns
    -------
    Two ascending int64 arrays that share no position and together hold every labelled row.

    Raises
    ------
    ConfigError
        `fraction` is not between 0 and 1, or the seed negative.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction to hold out must be between 0 and 1, found {fraction}")
    if seed < 0:
        raise ConfigError(f"seed must not be negative, found {seed}")
    column, n_classes = _checked(labels, 1.0, None)
    held = np.zeros(len(column), bool)
    for class_id in range(n_classes):
        members = np.flatnonzero(column == class_id)
        n_held = min(int(np.floor(fraction * len(members) + 0.5)), len(members) - 1)
        if n_held > 0:
            held[stream(seed, "subset.holdout", class_id).permutation(members)[:n_held]] = True
    return np.flatnonzero(~held & (column != UNLABELLED)), np.flatnonzero(held)


def _checked(labels: ArrayLike, imbalance: float, n_classes: int | None) -> tuple[IntArray, int]:
    column = np.asarray(labels)
    if column.ndim != 1 or (column.dtype.kind not in "iu" and column.size):
        raise LabelError(f"labels must be one row of integers, found shape {column.shape} of {column.dtype}")
    column = column.astype(np.int64)
    if not (isfinite(imbalance) and imbalance >= 1):
        raise ConfigError(f"imbalance is largest over smallest class, a number >= 1, found {imbalance}")
    highest = int(column.max(initial=UNLABELLED))
    if n_classes is None:
        n_classes = max(highest + 1, 1)
    if n_classes < 1:
        raise ConfigError(f"n_classes must be at least 1, found {n_classes}")
    if highest >= n_classes or column.min(initial=UNLABELLED) < UNLABELLED:
        raise LabelError(f"labels must lie in 0..{n_classes - 1} (or -1), found {column.min()}..{highest}")
    return column, n_classes


def _cut(column: IntArray, sizes: Sequence[int], seed: int) -> IntArray:
    if not 0 <= seed < 2**32:
        raise ConfigError(f"the seed of a cut must lie in 0..{2**32 - 1}, found {seed}")
    random = np.random.RandomState(seed)  # the published lists were drawn with the legacy generator
    taken = []
    for class_id, size in enumerate(sizes):
        members = np.flatnonzero(column == class_id)
        random.shuffle(members)
        taken.append(members[:size])
    return np.concatenate(taken).astype(np.int64)
