"""The judges of `acceptance`: a linear head, and the nearest real rows.

Both compute a margin, at least 0 where a row passes. Matrix products round differently in blocks of other sizes,
so a row whose margin is within rounding error of 0 is computed again alone: what is said of a row never depends on
its neighbours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.sampling.bounds import check_count
from ltstore.types import UNLABELLED, BoolArray, DoubleArray, FloatArray, IntArray, Moments, Rows

_BLOCK_QUERIES = 512
_BLOCK_ROWS = 4096
_CACHE_BYTES = 2**30
_ROUNDING = (
    1e-12  # of a float64 product over its factors' norms: some thousand times what 10^5 features can sum up to
)


class MarginJudge(ABC):
    """A judge by the sign of a margin; a subclass adds `_margin`."""

    def __call__(self, X: FloatArray, class_id: int) -> BoolArray:
        """Return (n,) which of (n, D) rows have a margin of at least 0."""
        margin = np.empty(len(X))
        unsure = np.zeros(len(X), np.bool_)
        for start in range(0, len(X), _BLOCK_QUERIES):
            some = slice(start, start + _BLOCK_QUERIES)
            margin[some], error = self._margin(X[some].astype(np.float64), class_id)
            unsure[some] = np.abs(margin[some]) <= error
        for i in np.flatnonzero(unsure):
            margin[i] = self._margin(X[i : i + 1].astype(np.float64), class_id)[0][0]
        passes: BoolArray = margin >= 0
        return passes

    @abstractmethod
    def _margin(self, X: DoubleArray, class_id: int) -> tuple[DoubleArray, DoubleArray]:
        """Return (n,) margins of (n, D) rows, and by how much rounding may have moved each at most."""


class LinearJudge(MarginJudge):
    """Passes rows that a linear head predicts as their class: its logit is the largest, or equal to it.

    Parameters
    ----------
    name : str
    head : callable
        Makes (weight (C, D), bias (C,), ...) of class moments; a module-level function, to be picklable.

    Notes
    -----
    2 C D flops a row.
    """

    def __init__(self, name: str, head: Callable[[Moments], tuple[DoubleArray, DoubleArray, Any]]) -> None:
        self._name, self._head = name, head
        self._arrays: tuple[DoubleArray, DoubleArray] | None = None

    @property
    def name(self) -> str:
        """The head's name."""
        return self._name

    @property
    def settings(self) -> Mapping[str, Any]:
        """None of its own."""
        return {}

    def fit(self, rows: Rows, moments: Moments) -> LinearJudge:
        """Make the head of these moments."""
        weight, bias, *_ = self._head(moments)
        self._arrays = weight, bias
        self._largest = float(np.linalg.norm(weight, axis=1).max(initial=0.0))
        self._offset = float(np.abs(bias[moments.counts > 0]).max(initial=0.0))
        return self

    def _margin(self, X: DoubleArray, class_id: int) -> tuple[DoubleArray, DoubleArray]:
        if self._arrays is None:
            raise DataError(f"judge {self._name} has not been fitted: call fit(rows, moments) first")
        weight, bias = self._arrays
        logits = X @ weight.T + bias
        own = logits[:, class_id].copy()
        logits[:, class_id] = -np.inf
        error = _ROUNDING * (np.linalg.norm(X, axis=1) * self._largest + self._offset)
        return own - logits.max(axis=1), error


class NearestJudge(MarginJudge):
    """Passes rows most of whose nearest real rows, by cosine, are of their class.

    Of k nearest rows, k odd, most are of the class exactly where the (k + 1) / 2-th nearest row of the class is
    nearer than the (k + 1) / 2-th nearest of all others, which is how it is computed. A class of n rows is judged
    by 2 n - 1 neighbours at most, so that it can win: one of a single row by the nearest. Parents count like other
    rows. Ties pass.

    Parameters
    ----------
    k : int
        Odd, at least 1.

    Notes
    -----
    Unit rows in float64 are kept where they take at most 1 GiB, else read anew for every block of rows that is judged.
    2 N D flops in float64 a row: for 40,000 rows against 10,847 of 1,280 features a trillion.
    """

    def __init__(self, k: int = 5) -> None:
        check_count("accept", "k", k)
        if not k % 2:
            raise ConfigError(f"accept: k must be odd, so that there is a majority, found {k}")
        self._k = k
        self._rows: Rows | None = None

    @property
    def name(self) -> str:
        """ "nearest"."""
        return "nearest"

    @property
    def settings(self) -> Mapping[str, Any]:
        """k."""
        return {"k": self._k}

    def fit(self, rows: Rows, moments: Moments) -> NearestJudge:
        """Keep the rows by reference; they are read when the first row is judged."""
        self._rows = rows
        self._blocks: dict[int, DoubleArray] = {}
        self._counts: IntArray = np.asarray(moments.counts, np.int64)
        return self

    def _margin(self, X: DoubleArray, class_id: int) -> tuple[DoubleArray, DoubleArray]:
        if self._rows is None:
            raise DataError("judge nearest has not been fitted: call fit(rows, moments) first")
        rows, labels = self._rows, self._rows.labels
        needed = max(min((self._k + 1) // 2, int(self._counts[class_id])), 1)
        best = [np.full((len(X), needed), -np.inf) for _ in range(2)]
        for start in range(0, rows.n_samples, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, rows.n_samples)
            similarity = X @ self._unit_rows(rows, start, stop).T
            own = labels[start:stop] == class_id
            others = ~own & (labels[start:stop] != UNLABELLED)
            for side, members in enumerate((own, others)):
                found = np.concatenate([best[side], similarity[:, members]], axis=1)
                best[side] = np.partition(found, -needed, axis=1)[:, -needed:]
        with np.errstate(invalid="ignore"):  # no row on either side: NaN, which does not pass
            margin = best[0].min(axis=1) - best[1].min(axis=1)
        return margin, _ROUNDING * np.linalg.norm(X, axis=1)

    def _unit_rows(self, rows: Rows, start: int, stop: int) -> DoubleArray:
        block = self._blocks.get(start)
        if block is None:
            block = rows.read(start, stop).astype(np.float64)
            norms = np.linalg.norm(block, axis=1)[:, None]
            np.divide(block, norms, out=block, where=norms > 0)
            if 8 * rows.n_samples * rows.n_features <= _CACHE_BYTES:
                self._blocks[start] = block
        return block

    def __getstate__(self) -> dict[str, Any]:
        """Leave the kept rows out of pickles."""
        return {**vars(self), "_blocks": {}}
