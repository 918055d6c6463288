"""Which rows are hidden (pure): large classes are cut down to the sizes that small ones have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltstore.errors import DataError
from ltstore.rng import stream
from ltstore.types import BoolArray, IntArray

ROWS_PER_CLASS = 200
MAX_CLASSES = 1000
LEAST_HIDDEN = 5
LEAST_HEAD = 4
LEAST_RATIO = 2
_HELD_OUT_SHARE = 0.2
_MOST_JUDGED = 50


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One small long-tailed problem made of training rows, whose answers are known.

    Attributes
    ----------
    train : (n,) int64
        Positions of the rows to train on, ascending.
    judge : (m,) int64
        Positions of hidden rows to judge on, ascending; none is in `train`.
    cut : (C,) bool
        Large classes that were cut down to a small class's size; they stand for the small ones.
    kept : (C,) bool
        Large classes that keep their rows but for some held out; they stand for the large ones.
    shots : (C,) int64
        Rows of each class in `train`.
    """

    train: IntArray
    judge: IntArray
    cut: BoolArray
    kept: BoolArray
    shots: IntArray


def large_classes(counts: IntArray) -> BoolArray:
    """Return which classes are the larger half of those that have rows, smaller class ids first among equals.

    Raises
    ------
    DataError
        There is no tail (no class is twice as large as another), or fewer than four of the larger half have rows enough
        to hide some.
    """
    nonempty = np.flatnonzero(counts)
    largest = nonempty[np.argsort(-counts[nonempty], kind="stable")][: (len(nonempty) + 1) // 2]
    if not len(nonempty) or counts[nonempty].max() < LEAST_RATIO * counts[nonempty].min():
        raise DataError("a backtest needs a long tail: no class has twice the rows of another")
    large = np.isin(np.arange(len(counts)), largest) & (counts >= 2 * LEAST_HIDDEN)
    if np.count_nonzero(large) < LEAST_HEAD:
        raise DataError(
            f"a backtest needs {LEAST_HEAD} classes of {2 * LEAST_HIDDEN} rows or more to cut down, found "
            f"{np.count_nonzero(large)}: choose by hand"
        )
    return large


def plan_trials(
    labels: IntArray,
    n_classes: int,
    *,
    n_trials: int = 4,
    seed: int = 0,
    rows_per_class: int = ROWS_PER_CLASS,
    max_classes: int = MAX_CLASSES,
) -> tuple[Trial, ...]:
    """Return trials, in pairs: what is cut in the first of a pair is kept in the second.

    The larger half of the classes is cut and judged (`large_classes`). The sizes that classes are cut to are those of
    the smaller half: quantiles of them, spread over the cut classes at random, so that accuracy over cut classes
    estimates accuracy over the small ones. Small classes take part with all their rows, as what a row may be confused
    with; no row of them is spent on judging.

    Parameters
    ----------
    labels : (N,) int64
        -1 where unknown: those rows take no part.
    n_classes : int
        C.
    n_trials : int
        Even, at least 2.
    seed : int
    rows_per_class : int
        Most rows that a class keeps in a trial, which bounds its cost.
    max_classes : int
        Most classes of a trial, chosen at random where there are more: large and small ones in their proportion.

    Raises
    ------
    DataError
        As `large_classes`; or the number of trials is odd.
    """
    counts = np.bincount(labels[labels >= 0], minlength=n_classes).astype(np.int64)
    large = large_classes(counts)
    small = (counts > 0) & ~large
    sizes = np.sort(counts[small])
    if n_trials < 2 or n_trials % 2:
        raise DataError(f"trials come in pairs, found {n_trials}")
    order = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
    positions = np.split(order, np.cumsum(counts)[:-1])
    trials = []
    for pair in range(n_trials // 2):
        random = stream(seed, "backtest.classes", epoch=pair)
        heads, tails = np.flatnonzero(large), np.flatnonzero(small)
        if len(heads) + len(tails) > max_classes:
            n_heads = max(LEAST_HEAD, round(max_classes * len(heads) / (len(heads) + len(tails))))
            heads = np.sort(random.permutation(heads)[:n_heads])
            tails = np.sort(random.permutation(tails)[: max_classes - n_heads])
        shuffled = random.permutation(heads)
        halves = shuffled[: len(heads) // 2], shuffled[len(heads) // 2 :]
        for number, (cut, kept) in enumerate((halves, halves[::-1])):
            trials.append(
                _trial(positions, counts, sizes, cut, kept, tails, rows_per_class, seed, 2 * pair + number)
            )
    return tuple(trials)


def _trial(
    positions: list[IntArray],
    counts: IntArray,
    sizes: IntArray,
    cut: IntArray,
    kept: IntArray,
    tails: IntArray,
    rows_per_class: int,
    seed: int,
    number: int,
) -> Trial:
    random = stream(seed, "backtest.rows", epoch=number)
    quantiles = (np.arange(len(cut)) + 0.5) / len(cut)
    wanted = random.permutation(sizes[(quantiles * len(sizes)).astype(np.int64)])
    train, judge = [], []
    for c, size in zip(cut.tolist(), wanted.tolist(), strict=True):
        rows = random.permutation(positions[c])
        n = min(size, counts[c] - LEAST_HIDDEN, rows_per_class)
        train.append(rows[:n])
        judge.append(rows[n : n + _MOST_JUDGED])
    for c in kept.tolist():
        rows = random.permutation(positions[c])
        n_held = min(max(int(_HELD_OUT_SHARE * counts[c]), LEAST_HIDDEN), _MOST_JUDGED)
        judge.append(rows[:n_held])
        train.append(rows[n_held : n_held + rows_per_class])
    train += [random.permutation(positions[c])[:rows_per_class] for c in tails.tolist()]
    shots = np.zeros(len(counts), np.int64)
    for c, chosen in zip([*cut.tolist(), *kept.tolist(), *tails.tolist()], train, strict=True):
        shots[c] = len(chosen)
    return Trial(
        train=np.sort(np.concatenate(train)),
        judge=np.sort(np.concatenate(judge)),
        cut=np.isin(np.arange(len(counts)), cut),
        kept=np.isin(np.arange(len(counts)), kept),
        shots=shots,
    )
