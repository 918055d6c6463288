"""Counts, means, the pooled covariance and each class's scatter in low-rank + diagonal form."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ltstore.engine import Engine
from ltstore.errors import ConfigError, DataError
from ltstore.rows import iter_blocks
from ltstore.types import UNLABELLED, DoubleArray, FloatArray, IntArray, Progress, Rows, no_progress

BLOCK_ROWS = 4096
_LANCZOS = 16
"""From this many features per eigenvector wanted they are found by Lanczos: in a third of the time at D = 1,280."""


@dataclass(frozen=True, kw_only=True)
class ClassMoments:
    """First and second moments of every class, as `ltstore.types.Moments`.

    Attributes
    ----------
    counts : (C,) int64
        Labelled rows of each class.
    means : (C, D) float64
        Zero where a class has no rows.
    pooled : (D, D) float64
        Within-class covariance of all classes together, divisor max(N - n_nonempty, 1).
    basis : (D, r) float64
        Orthonormal; top eigenvectors of `pooled`, largest first, each with its largest component positive.
    scatter : (C, r, r) float64
        U' S_c U with S_c = sum over the class of (x - mean)(x - mean)', not divided.
    residual : (C, D) float64
        Diagonal of (I - UU') S_c (I - UU'), not divided.
    """

    counts: IntArray
    means: DoubleArray
    pooled: DoubleArray
    basis: DoubleArray
    scatter: DoubleArray
    residual: DoubleArray


@dataclass(frozen=True, kw_only=True)
class MomentSums:
    """What the first pass adds up, around an origin for each class. Merging is adding.

    The origin is the first row of the class. Around it products of float32 rows are good enough: neither a mean that
    all rows share nor the distance of the classes takes digits from them, and rows that are all equal give zeros.

    Attributes
    ----------
    counts : (C,) int64
    origins : (C, D) float32
        o_c, a row of the class; zero for one without.
    sums : (C, D) float64
        Sum of x - o_c.
    gram : (D, D) float64
        Sum of (x - o_c)(x - o_c)' over labelled rows, within a block in float32.
    """

    counts: IntArray
    origins: FloatArray
    sums: DoubleArray
    gram: DoubleArray

    @classmethod
    def empty(cls, n_classes: int, n_features: int) -> MomentSums:
        """Return the sums over no rows."""
        return cls(
            counts=np.zeros(n_classes, np.int64),
            origins=np.zeros((n_classes, n_features), np.float32),
            sums=np.zeros((n_classes, n_features)),
            gram=np.zeros((n_features, n_features)),
        )

    def add(self, X: FloatArray, labels: IntArray) -> None:
        """Add a block of rows in place; unlabelled rows are skipped.

        Parameters
        ----------
        X : (n, D) float32
            Not modified.
        labels : (n,) int64
        """
        block, order = _labelled(X, labels)
        if not len(order):
            return
        classes, starts = np.unique(order, return_index=True)
        new = self.counts[classes] == 0
        self.origins[classes[new]] = block[starts[new]]
        block -= self.origins[order]
        self.counts[classes] += np.diff(np.append(starts, len(order)))
        self.sums[classes] += _sums(block, starts)
        self.gram[...] += block.T @ block

    def __add__(self, other: MomentSums) -> MomentSums:
        """Return the sums over both sets of rows."""
        if self.sums.shape != other.sums.shape:
            raise DataError(
                f"moment sums of (classes, features) {self.sums.shape} and {other.sums.shape} cannot be added"
            )
        origins = np.where((self.counts > 0)[:, None], self.origins, other.origins)
        moved = np.where((other.counts > 0)[:, None], other.origins.astype(np.float64) - origins, 0.0)
        shifted = moved * other.counts[:, None]
        cross = moved.T @ (other.sums + shifted / 2)
        return MomentSums(
            counts=self.counts + other.counts,
            origins=origins,
            sums=self.sums + other.sums + shifted,
            gram=self.gram + other.gram + cross + cross.T,
        )

    @property
    def means(self) -> DoubleArray:
        """(C, D) class means, zero where a class has no rows; a new array."""
        return self.origins + self.sums / np.maximum(self.counts, 1)[:, None]

    @property
    def pooled(self) -> DoubleArray:
        """(D, D) within-class covariance: the sum of (x - mu_c)(x - mu_c)' / max(N - n_nonempty, 1); a new array.

        Exactly zero where classes have one row each, or equal rows.
        """
        within = self.gram - (self.sums / np.maximum(self.counts, 1)[:, None]).T @ self.sums
        within /= max(_freedom(self.counts), 1)
        return (within + within.T) / 2


def class_moments(
    rows: Rows,
    *,
    rank: int = 16,
    basis: DoubleArray | None = None,
    block_rows: int = BLOCK_ROWS,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> ClassMoments:
    """Compute the moments of every class in two passes over the rows.

    The first pass gives counts, means, the pooled within-class covariance and from it the shared basis; the
    second the scatter of each class around its mean, inside the basis and on the diagonal outside it.

    Parameters
    ----------
    rows : Rows
        Unlabelled rows are skipped; empty and one-row classes are allowed.
    rank : int
        r, at least 1; no more than D are kept.
    basis : (D, r) float64, optional
        Orthonormal; used in place of the top eigenvectors.
    block_rows : int
        Rows in memory at once; changes the result by rounding only.
    engine : Engine, optional
        Workers that share the passes, each a range of the rows; changes the result by rounding only.
    progress : Progress
        Called after each block (or worker's share) of each pass, so for 2 N rows in all, with the seconds of
        "moments".

    Raises
    ------
    ConfigError
        `rank` or `block_rows` is below 1.
    DataError
        No row has a label.
    WorkerLostError
        A worker of the engine was lost more often than it is replaced.

    Notes
    -----
    Time: N D^2 + 4 N D r flops in float32, around class means and added up over blocks in float64 (within 1e-6 of the
    largest variance of a result in float64), and some 300 D^2 (by Lanczos; 4/3 D^3 at small D) in float64 for the
    basis. Memory: 8 (2.5 C D + C r^2 + 3 D^2) bytes for the result and the sums, plus about 16 block_rows D: 0.4 GB at
    C = 8,142, D = 768, r = 16.
    """
    if rank < 1 or block_rows < 1:
        raise ConfigError(f"rank and block_rows must be at least 1, found {rank} and {block_rows}")
    if engine is None:
        share = _Share(rows, 0, rows.n_samples, block_rows, progress)
        return _moments(rows, rank, basis, lambda task, *arguments: task(share, *arguments))
    with engine.start(_take_share, (rows, block_rows)) as crew:
        n_rows = [len(range(*_range(rows.n_samples, k, crew.n_workers))) for k in range(crew.n_workers)]

        def total(task: Callable[..., Any], *arguments: DoubleArray) -> Any:
            found, began = None, time.perf_counter()
            for done, part in zip(n_rows, crew.iter_results(task, *arguments), strict=True):
                found = part if found is None else found + part
                progress(done, {"moments": time.perf_counter() - began})
                began = time.perf_counter()
            return found

        return _moments(rows, rank, basis, total)


def _moments(rows: Rows, rank: int, basis: DoubleArray | None, total: Callable[..., Any]) -> ClassMoments:
    """Return the moments from sums over all rows; `total(task, *arguments)` gives those of a task."""
    sums: MomentSums = total(_first_pass)
    if not sums.counts.any():
        raise DataError(f"class moments need labelled rows, found none among {rows.n_samples}")
    pooled, means = sums.pooled, sums.means
    if basis is None:
        basis = _top_eigenvectors(pooled, min(rank, rows.n_features))
    scatters: _Scatters = total(_second_pass, means, basis)
    return ClassMoments(
        counts=sums.counts,
        means=means,
        pooled=pooled,
        basis=basis,
        scatter=scatters.scatter,
        residual=scatters.residual,
    )


class _Share(NamedTuple):
    """The rows that one worker goes over."""

    rows: Rows
    start: int
    stop: int
    block_rows: int
    progress: Progress


class _Scatters:
    """What the second pass adds up."""

    def __init__(self, scatter: DoubleArray, residual: DoubleArray) -> None:
        self.scatter, self.residual = scatter, residual

    def __add__(self, other: _Scatters) -> _Scatters:
        return _Scatters(self.scatter + other.scatter, self.residual + other.residual)


def _range(n_samples: int, number: int, n_workers: int) -> tuple[int, int]:
    return n_samples * number // n_workers, n_samples * (number + 1) // n_workers


def _take_share(source: tuple[Rows, int], number: int, n_workers: int) -> _Share:
    rows, block_rows = source
    return _Share(rows, *_range(rows.n_samples, number, n_workers), block_rows, no_progress)


def _first_pass(share: _Share) -> MomentSums:
    sums = MomentSums.empty(len(share.rows.class_names), share.rows.n_features)
    for X, labels in _timed_blocks(share):
        sums.add(X, labels)
    return sums


def _second_pass(share: _Share, means: DoubleArray, basis: DoubleArray) -> _Scatters:
    n_classes, r = len(means), basis.shape[1]
    scatters = _Scatters(np.zeros((n_classes, r, r)), np.zeros(means.shape))
    for X, labels in _timed_blocks(share):
        _add_scatter(X, labels, means, basis, scatters.scatter, scatters.residual)
    return scatters


def merge_moments(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    """Return the moments of two sets of rows together, from their moments: rows that were added cost only themselves.

    Parameters
    ----------
    a, b : ClassMoments
        Of the same classes and features, with one basis (see `class_moments`), which the result keeps. It is that of
        the rows of `a`, and slowly becomes less than the best for all rows, never wrong: inside and outside it the
        scatters are exact.

    Raises
    ------
    DataError
        Shapes or bases differ.

    Notes
    -----
    With d the difference of a class's two means, the scatters add up to ``S_a + S_b + n_a n_b / (n_a + n_b) d d'``
    (Chan, Golub, LeVeque 1979). 2 C D r + C r^2 + 2 C D^2 flops.
    """
    if a.means.shape != b.means.shape or not np.array_equal(a.basis, b.basis):
        raise DataError("moments of other classes, features or bases cannot be merged: compute them anew")
    counts = a.counts + b.counts
    n_a, n_b = a.counts.astype(np.float64), b.counts.astype(np.float64)
    n = np.maximum(n_a + n_b, 1.0)
    gap = np.where(((n_a > 0) & (n_b > 0))[:, None], b.means - a.means, 0.0)
    weight = n_a * n_b / n
    means = (n_a[:, None] * a.means + n_b[:, None] * b.means) / n[:, None]
    inside = gap @ a.basis
    outside = gap - inside @ a.basis.T
    within = (gap * weight[:, None]).T @ gap
    within += _freedom(a.counts) * a.pooled + _freedom(b.counts) * b.pooled
    return ClassMoments(
        counts=counts,
        means=means,
        pooled=(within + within.T) / (2 * max(_freedom(counts), 1)),
        basis=a.basis,
        scatter=a.scatter + b.scatter + np.einsum("c,cr,cs->crs", weight, inside, inside),
        residual=a.residual + b.residual + weight[:, None] * outside**2,
    )


def _freedom(counts: IntArray) -> int:
    """Rows less the means that were taken out of them."""
    return int(counts.sum()) - int(np.count_nonzero(counts))


def _timed_blocks(share: _Share) -> Iterator[tuple[FloatArray, IntArray]]:
    for _, X, labels in iter_blocks(share.rows, share.block_rows, first=share.start, last=share.stop):
        began = time.perf_counter()
        yield X, labels
        share.progress(len(X), {"moments": time.perf_counter() - began})


def _labelled(X: FloatArray, labels: IntArray) -> tuple[FloatArray, IntArray]:
    """Return a copy of the labelled rows and their labels, sorted by class, so that a class is one run."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] != UNLABELLED]
    return X[order], labels[order]


def _sums(X: FloatArray, starts: IntArray) -> FloatArray:
    """Return the sum of each run of rows: by BLAS, several times as fast as `np.add.reduceat` down the rows."""
    return np.stack([np.ones(len(run), np.float32) @ run for run in np.split(X, starts[1:])])


def _top_eigenvectors(pooled: DoubleArray, rank: int) -> DoubleArray:
    from scipy.linalg import eigh

    n = len(pooled)
    vectors = _by_lanczos(pooled, rank) if n >= _LANCZOS * rank else None
    if vectors is None:
        _, vectors = eigh(pooled, subset_by_index=(n - rank, n - 1))
    basis: DoubleArray = np.ascontiguousarray(vectors[:, ::-1])
    # An eigenvector's sign is arbitrary; fixing it makes the artefact the same on every machine.
    largest = basis[np.abs(basis).argmax(axis=0), np.arange(rank)]
    return basis * np.where(largest < 0, -1.0, 1.0)


def _by_lanczos(pooled: DoubleArray, rank: int) -> DoubleArray | None:
    """Return (D, rank) top eigenvectors, largest last, to full precision; None where rank of them do not stand out."""
    from scipy.sparse.linalg import ArpackError, eigsh

    start = np.random.default_rng(0).standard_normal(len(pooled))  # the same result every time
    try:
        values, vectors = eigsh(pooled, rank, which="LA", v0=start, tol=0)
    except ArpackError:  # all zero, or no convergence
        return None
    order = np.argsort(values)
    if values[order[0]] <= 1e-10 * values[order[-1]]:
        return None  # fewer directions than asked for: the rest would be arbitrary
    found: DoubleArray = vectors[:, order]
    return found


def _add_scatter(
    X: FloatArray,
    labels: IntArray,
    means: DoubleArray,
    basis: DoubleArray,
    scatter: DoubleArray,
    residual: DoubleArray,
) -> None:
    centred, order = _labelled(X, labels)
    if not len(order):
        return
    classes, starts = np.unique(order, return_index=True)
    centred -= means[classes].astype(np.float32)[np.searchsorted(classes, order)]
    inside = centred @ basis.astype(np.float32)
    centred -= inside @ basis.T.astype(np.float32)
    np.square(centred, out=centred)
    residual[classes] += _sums(centred, starts)
    # One small GEMM per class present: outer products of all rows at once would take n r^2 floats.
    for c, run in zip(classes, np.split(inside, starts[1:]), strict=True):
        scatter[c] += run.T @ run
