"""The function that training makes small, and its gradient, in one pass over a stream.

With q the class shares of the stream, m their mean row, M the metric and s its mean eigenvalue:

    z(x)    = W (x - m) + b + tau log q
    f(W, b) = mean over rows of (logsumexp(z) - z[y])  +  l2/2 tr(W M W')        penalty "whitened"
                                                       +  l2/2 s tr(W W')        penalty "plain"

The bias is not penalised. Rows are centred because an uncentred mean couples bias and weight; it costs
nothing, being W m subtracted from the offsets and sum(g) m' from the gradient.

What may be added, alone or together:

- Weights of rows (the stream's) and of classes: the mean becomes a weighted one, and q the shares of the weight, as a
  row of weight 2 is that row twice. Classes that weigh the same have no adjustment, whatever their sizes.
- Margins: z[y] - margin[y] stands for z[y] in the loss of a row of class y.
- Smoothing e: z[y] in the loss becomes (1 - e) z[y] + e mean of z over the classes that have rows.
- An implicit term: B of `ltstore.sampling.implicit` is added inside logsumexp, z_j(x) + B[y, j]: the loss then bounds
  the mean loss over infinitely many rows drawn around x. B depends on W; the gradient is exact, and f stays convex (B
  is a convex quadratic in W, logsumexp is convex and grows with each logit).
- A cosine head (`ltstore.linear.heads`): W is made of parameters, there is neither bias nor m, and f is not convex.

A class without any row (q = 0) has no logarithm and no gradient. It is taken out of the softmax by an offset
of EMPTY_CLASS_BIAS, which the saved bias keeps, so that it is never predicted and every number stays finite.

References
----------
Menon et al. 2021, "Long-tail learning via logit adjustment", equation 10; Ren et al. 2020, "Balanced
meta-softmax", for tau = 1. Wang et al. 2019, "Implicit semantic data augmentation for deep networks", for B.
Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7, for smoothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ltstore.errors import DataError
from ltstore.kernels.combine import combine_rows, scatter_rows
from ltstore.kernels.contract import SoftmaxGradient, SoftmaxTerms
from ltstore.kernels.dispatch import load_backend
from ltstore.linear.device import Evaluator
from ltstore.linear.heads import HeadForm, LinearForm
from ltstore.linear.metric import Metric
from ltstore.sampling.covariance import LowRankCovariance
from ltstore.sampling.implicit import implicit_bias, implicit_gradient
from ltstore.stream import Block, CombinedRows, TrainingStream
from ltstore.types import DoubleArray, FloatArray, IntArray

EMPTY_CLASS_BIAS = -1e9
_IMPLICIT_ROWS = 1024  # at once: what B adds to their logits is a copy of them
_SUMS_BYTES = 512 << 10  # of the logits of synthetic rows between sum and scatter: they stay in a cache
_LOGITS_BYTES = 128 << 20  # of a block; heads of many classes, or many heads, take a block in parts

Point = tuple[DoubleArray, DoubleArray]  # parameters (C, D) and bias (C,)


@dataclass(frozen=True)
class Evaluation:
    """Value and gradient of the objective at one point.

    Attributes
    ----------
    value : float
        The objective.
    loss : float
        Its first term: mean loss of a row.
    grad_weight : (C, D) float64
        With respect to the parameters of the weight.
    grad_bias : (C,) float64
    seconds, data_seconds : float
        Of the whole pass, and the part of it in which it waited for rows.
    from_rows : bool
        Whether the rows were gone through: see `without_rows`.
    """

    value: float
    loss: float
    grad_weight: DoubleArray
    grad_bias: DoubleArray
    seconds: float = 0.0
    data_seconds: float = 0.0
    from_rows: bool = True


class ImplicitTerm(NamedTuple):
    """Noise around the rows that is integrated out.

    Attributes
    ----------
    covariance : LowRankCovariance
        Of every class.
    strength : float
        lambda, above 0.
    """

    covariance: LowRankCovariance
    strength: float


class Objective:
    """f(W, b) of a stream.

    Parameters
    ----------
    stream : TrainingStream
    metric : Metric
    center : (D,) float64
        m, any point near the mean of the stream: the minimum does not depend on it. A head without bias has none.
    tau, l2 : float
    penalty : {"whitened", "plain"}
    backend : str
        A resolved name.
    implicit : ImplicitTerm, optional
    smoothing : float in [0, 1)
        e.
    margins : (C,) float64, optional
    class_weights : (C,) float64, optional
        Non-negative; they multiply the weights of the stream's rows.
    form : HeadForm
        Linear unless another is given.
    evaluator : Evaluator, optional
        Makes the passes; NumPy on the CPU where there is none.
    class_means : (C, D) float64, optional
        Those of the stream's rows, all of which are real and weigh the same.

    Notes
    -----
    `evaluate` costs 4 N D C flops in two float32 matrix products per block and 2 C D^2 for the whitened
    penalty; an implicit term adds two passes over the logits and some 10 C^2 (r^2 + D) flops. Blocks are summed in
    float64.
    """

    def __init__(
        self,
        stream: TrainingStream,
        metric: Metric,
        center: DoubleArray,
        *,
        tau: float,
        l2: float,
        penalty: str,
        backend: str,
        implicit: ImplicitTerm | None = None,
        smoothing: float = 0.0,
        margins: DoubleArray | None = None,
        class_weights: DoubleArray | None = None,
        form: HeadForm | None = None,
        evaluator: Evaluator | None = None,
        class_means: DoubleArray | None = None,
    ) -> None:
        self.class_means = class_means
        self.stream = stream
        self.evaluator = evaluator
        self.form: HeadForm = LinearForm() if form is None else form
        self.center = center if self.form.has_bias else np.zeros_like(center)
        self.implicit = implicit
        self._metric = metric
        self._l2 = l2
        self._whitened = penalty == "whitened"
        self._backend = backend
        self.shares = stream.class_shares
        self.mean_weight = stream.mean_weight  # of a row
        self.class_weights = None
        if class_weights is not None:
            self.class_weights = class_weights.astype(np.float32)
            self.mean_weight *= float(self.shares @ class_weights)
            self.shares = self.shares * class_weights / (self.shares @ class_weights)
        self.empty = self.shares == 0
        log_shares = np.log(np.where(self.empty, 1.0, self.shares))
        self._adjustment = np.where(self.empty, EMPTY_CLASS_BIAS, tau * log_shares)
        self.even_bias: DoubleArray = -tau * log_shares * self.form.has_bias
        """(C,): with it and W = 0 the softmax of every row is the same for all classes that have rows."""
        self.prior_bias: DoubleArray = self.even_bias + log_shares * self.form.has_bias
        """(C,): with it and W = 0 the softmax of every row is q, whatever tau is."""
        self._margins = None if margins is None else margins.astype(np.float32)
        self._smoothing = None
        if smoothing:
            self._smoothing = (smoothing * ~self.empty / np.count_nonzero(~self.empty)).astype(np.float32)

    @cached_property
    def kernel(self) -> SoftmaxGradient:
        """Of the backend, on the CPU; imported when it is first asked for, by the process that uses it."""
        return load_backend(self._backend)

    def evaluate(self, weight: DoubleArray, bias: DoubleArray) -> Evaluation:
        """Return value and gradient at (weight, bias), both for centred rows.

        Raises
        ------
        DataError
            The loss is not finite.
        """
        return evaluate_together([self], [(weight, bias)])[0]

    def terms(self, weight: DoubleArray, bias: DoubleArray) -> SoftmaxTerms:
        """Return what the kernel is told beside the logits X @ weight.T of rows that are not centred."""
        offsets = self._adjustment - weight @ self.center + bias * self.form.has_bias
        return SoftmaxTerms(offsets.astype(np.float32), self._margins, self._smoothing)

    def row_weights(self, labels: IntArray, weights: FloatArray | None) -> FloatArray | None:
        """Return (n,) the weights of a block's rows, None for ones."""
        if self.class_weights is None:
            return weights
        own: FloatArray = self.class_weights[labels]
        return own if weights is None else own * weights

    def penalty(self, parameters: DoubleArray) -> tuple[float, DoubleArray]:
        """Return the penalty and its gradient."""
        if not self._l2:
            return 0.0, np.zeros_like(parameters)
        if self._whitened:
            pull = self._l2 * (parameters.astype(np.float32) @ self._metric.matrix).astype(np.float64)
        else:
            pull = self._l2 * self._metric.scale * parameters
        return 0.5 * float(np.vdot(parameters, pull)), pull


def evaluate_together(objectives: Sequence[Objective], points: Sequence[Point]) -> list[Evaluation]:
    """Evaluate objectives of one stream, each at its point, in one pass: rows are read once, products are stacked.

    Equal to `Objective.evaluate` of each, within rounding.

    Raises
    ------
    DataError
        A loss is not finite.
    """
    if (known := without_rows(objectives, points)) is not None:
        return known
    started = time.perf_counter()
    sums = PassSums(objectives, points)
    waited = sums.add_stream(objectives[0].stream, objectives[0].evaluator)
    return sums.evaluations(started=started, data_seconds=waited)


def without_rows(objectives: Sequence[Objective], points: Sequence[Point]) -> list[Evaluation] | None:
    """Evaluate objectives at points with W = 0 from the class means alone; None where that takes a pass.

    There the rows of a class have one softmax, so that their mean, with their number for a weight, stands for all.

    Notes
    -----
    4 C^2 D flops a head.
    """
    if any(weight.any() for weight, _ in points):
        return None
    means, counts = objectives[0].class_means, objectives[0].stream.class_counts
    if means is None:
        return None
    started = time.perf_counter()
    classes = np.flatnonzero(counts)
    sums = PassSums(objectives, points)
    sums.add(means[classes].astype(np.float32), classes, counts[classes].astype(np.float32))
    return [replace(found, from_rows=False) for found in sums.evaluations(started=started)]


class HeadTotals(NamedTuple):
    """What a head has added up: loss, weight of the rows, and for an implicit term what its gradient needs."""

    loss: float
    weight: float
    upstream: DoubleArray | None
    class_mass: DoubleArray | None


class Totals(NamedTuple):
    """What a pass has added up over some of its rows; `PassSums.add_totals` takes those of others.

    Attributes
    ----------
    grad_weight : (L, D) float64
    grad_bias : (L,) float64
        L logits of a row, of all heads.
    heads : tuple of K HeadTotals
    """

    grad_weight: DoubleArray
    grad_bias: DoubleArray
    heads: tuple[HeadTotals, ...]


class PassSums:
    """What a pass adds up, block by block, for one or several objectives at a point each.

    Parameters
    ----------
    objectives : sequence of K Objective
        Of the same classes and features, and one backend.
    points : sequence of K (parameters, bias)

    Attributes
    ----------
    heads : list of K HeadSums
    weights : (L, D) float32
        Of all heads.

    Notes
    -----
    Memory: 12 K C D bytes, and the logits of a block, at most 128 MiB (or those of 256 rows).
    """

    def __init__(self, objectives: Sequence[Objective], points: Sequence[Point]) -> None:
        self.heads = [HeadSums(one, *point) for one, point in zip(objectives, points, strict=True)]
        self.weights: FloatArray = np.concatenate([head.weight.astype(np.float32) for head in self.heads])
        self._grad_weight = np.zeros(self.weights.shape)
        self._grad_bias = np.zeros(len(self.weights))
        self._part = max(256, _LOGITS_BYTES // (4 * len(self.weights)))
        self._logits: FloatArray = np.empty((0, len(self.weights)), np.float32)

    def add_stream(self, stream: TrainingStream, evaluator: Evaluator | None = None) -> float:
        """Add all rows of a stream, or of a part of one; returns the seconds it waited for them.

        An evaluator adds them up where it is, and the sums come here; left out they are added in NumPy.
        """
        if evaluator is not None:
            return evaluator(stream, self)
        waited = 0.0
        combined = stream.combined(self.n_columns)
        blocks = timed(stream if combined is None else stream.real_blocks())
        if combined is not None and stream.real_cached:
            own = list(blocks)
            waited = sum(seconds for _, seconds in own)
            self.add_combined(combined, [block for block, _ in own])
        else:
            for block, seconds in blocks:
                self.add(*block)
                waited += seconds
            if combined is not None:
                self.add_combined(combined, None)
        return waited

    @property
    def totals(self) -> Totals:
        """What has been added up so far; not copied."""
        return Totals(self._grad_weight, self._grad_bias, tuple(head.totals for head in self.heads))

    def add_totals(self, other: Totals) -> None:
        """Add what was added up elsewhere at the same points, over other rows of the stream."""
        self._grad_weight += other.grad_weight
        self._grad_bias += other.grad_bias
        for head, totals in zip(self.heads, other.heads, strict=True):
            head.add_totals(totals)

    def add(self, X: FloatArray, labels: IntArray, weights: FloatArray | None) -> None:
        """Add a block of rows: logits, each head's softmax in place, and the gradient of all heads."""
        for start in range(0, len(X), self._part):
            rows = slice(start, start + self._part)
            logits = np.matmul(X[rows], self.weights.T, out=self._rows(len(X[rows])))
            self._softmax(logits, labels[rows], _part(weights, rows), X[rows])
            self._grad_weight += logits.T @ X[rows]

    def add_combined(self, combined: CombinedRows, own: Sequence[Block] | None) -> None:
        """Add the synthetic rows that are sums of atoms, and the real rows that are their atoms.

        Parameters
        ----------
        combined : CombinedRows
        own : sequence of Block, optional
            The real rows that are the first atoms, to be added too; left out where they have been added.

        Notes
        -----
        Memory: the logits of the atoms and their gradient, and the rows of the atoms where `own` is left out.
        """
        atoms = [X for X, _, _ in own] if own is not None else [combined.real_rows()]
        atoms.append(combined.vectors)
        starts = np.cumsum([0, *map(len, atoms)])
        logits, gradient = combined.scratch(self.n_columns)
        for start, X in zip(starts, atoms, strict=False):
            np.matmul(X, self.weights.T, out=logits[start : start + len(X)])
        gradient[0 if own is None else starts[-2] :] = 0
        for start, (X, labels, weights) in zip(starts, own or (), strict=False):
            block = gradient[start : start + len(X)]
            block[...] = logits[start : start + len(X)]
            self._softmax(block, labels, weights, X)
        part = max(64, _SUMS_BYTES // (4 * self.n_columns))
        for first in range(0, len(combined.labels), part):
            rows = slice(first, first + part)
            terms = combined.indices[rows], combined.factors[rows]
            sums = combine_rows(*terms, logits, self._rows(len(terms[0])))
            self._softmax(sums, combined.labels[rows], None, combined.vectors)
            scatter_rows(*terms, sums, gradient)
        for start, X in zip(starts, atoms, strict=False):
            self._grad_weight += gradient[start : start + len(X)].T @ X

    def _softmax(self, logits: FloatArray, labels: IntArray, weights: FloatArray | None, X: FloatArray) -> None:
        """Add each head's loss; the logits become the gradient with respect to them."""
        for number, head in enumerate(self.heads):
            head.softmax(logits, number * head.n_classes, labels, weights, X)
        self._grad_bias += np.ones(len(logits), np.float32) @ logits  # ten times faster than a sum in float64

    def _rows(self, n: int) -> FloatArray:
        """Return (n, L) float32 to write logits to; the next call overwrites them."""
        if n > len(self._logits):
            self._logits = np.empty((n, self.n_columns), np.float32)
        return self._logits[:n]

    @property
    def n_columns(self) -> int:
        """Logits of a row, of all heads."""
        return len(self.weights)

    def evaluations(
        self, *, started: float, data_seconds: float = 0.0, total: float | None = None
    ) -> list[Evaluation]:
        """Return what was added up, over `total` (default: the weight of the rows), with the penalties."""
        cuts = np.cumsum([head.n_classes for head in self.heads])[:-1]
        gradients = zip(np.split(self._grad_weight, cuts), np.split(self._grad_bias, cuts), strict=True)
        found = [
            head.evaluation(*gradient, total) for head, gradient in zip(self.heads, gradients, strict=True)
        ]
        seconds = time.perf_counter() - started
        return [Evaluation(*one, seconds=seconds, data_seconds=data_seconds) for one in found]


class HeadSums:
    """What one objective adds up at its point.

    Attributes
    ----------
    weight : (C, D) float64
    terms : SoftmaxTerms
    loss, total : float
        Summed loss and weight of the rows so far.
    between : (C, C) float32, or None
        The implicit term B, which is added to the logits of a row by its label.
    upstream : (C, C) float64, or None
        Sum of the gradients of the logits by label, for the gradient of B.
    class_mass : (C,) float64
        Weight of the rows of each class, where there is B.
    """

    def __init__(self, objective: Objective, parameters: DoubleArray, bias: DoubleArray) -> None:
        self.objective = objective
        self._parameters = parameters
        self.weight = objective.form.weights(parameters)
        self.n_classes = len(bias)
        self.terms = objective.terms(self.weight, bias)
        self.loss = self.total = 0.0
        self.upstream: DoubleArray | None = None
        if objective.implicit is not None:
            self.upstream = np.zeros((self.n_classes, self.n_classes))
            self.class_mass = np.zeros(self.n_classes)

    @cached_property
    def between(self) -> FloatArray | None:
        """(C, C) float32 B of the implicit term; where no row is added it is not made."""
        implicit = self.objective.implicit
        return None if implicit is None else implicit_bias(self.weight, *implicit).astype(np.float32)

    def softmax(
        self, logits: FloatArray, first: int, labels: IntArray, weights: FloatArray | None, X: FloatArray
    ) -> None:
        """Add the loss of the rows; this head's columns of the logits become its gradient."""
        own = logits[:, first : first + self.n_classes]
        weights = self.objective.row_weights(labels, weights)
        if self.between is not None:
            _add_between(own, labels, self.between)
        loss = self.objective.kernel(logits, labels, self.terms, weights, first)
        if not np.isfinite(loss):
            raise DataError(non_finite(X, self.weight))
        self.loss += loss
        self.total += len(labels) if weights is None else float(weights.sum(dtype=np.float64))
        if self.upstream is not None:
            _sum_by_class(own, labels, self.upstream)
            self.class_mass += np.bincount(labels, weights, minlength=self.n_classes)

    @property
    def totals(self) -> HeadTotals:
        """What has been added up so far."""
        mass = None if self.upstream is None else self.class_mass
        return HeadTotals(self.loss, self.total, self.upstream, mass)

    def add_totals(self, other: HeadTotals) -> None:
        """Add what was added up over other rows."""
        self.loss += other.loss
        self.total += other.weight
        if self.upstream is not None and other.upstream is not None and other.class_mass is not None:
            self.upstream += other.upstream
            self.class_mass += other.class_mass

    def evaluation(
        self, grad_weight: DoubleArray, grad_bias: DoubleArray, total: float | None
    ) -> tuple[float, float, DoubleArray, DoubleArray]:
        """Return value, loss and the gradients with respect to parameters and bias."""
        objective = self.objective
        total = self.total if total is None else total
        grad_weight -= np.outer(grad_bias, objective.center)
        if objective.implicit is not None and self.upstream is not None:
            if self.terms.smoothing is not None and self.between is not None:
                # The kernel took B for part of the target's logits: give it back.
                smoothing = self.terms.smoothing.astype(np.float64)
                self.loss += float(self.class_mass @ (self.between @ smoothing))
                self.upstream += np.outer(self.class_mass, smoothing)
            grad_weight += implicit_gradient(self.weight, *objective.implicit, self.upstream)
        penalty, pull = objective.penalty(self._parameters)
        loss = self.loss / total
        return (
            loss + penalty,
            loss,
            objective.form.pull_back(self._parameters, grad_weight / total) + pull,
            grad_bias / total * objective.form.has_bias,
        )


def timed(blocks: Iterable[Block]) -> Iterator[tuple[Block, float]]:
    """Yield each block with the seconds it was waited for."""
    iterator, started = iter(blocks), time.perf_counter()
    for block in iterator:
        yield block, time.perf_counter() - started
        started = time.perf_counter()


def _part(weights: FloatArray | None, rows: slice) -> FloatArray | None:
    return None if weights is None else weights[rows]


def _add_between(logits: FloatArray, labels: IntArray, between: FloatArray) -> None:
    """Add to each row, in place, the row of `between` that is its label's."""
    for start in range(0, len(logits), _IMPLICIT_ROWS):
        some = slice(start, start + _IMPLICIT_ROWS)
        logits[some] += between[labels[some]]


def _sum_by_class(rows: FloatArray, labels: IntArray, sums: DoubleArray) -> None:
    """Add each row, in place, to the row of `sums` that is its label's."""
    for start in range(0, len(rows), _IMPLICIT_ROWS):
        some = labels[start : start + _IMPLICIT_ROWS]
        order = np.argsort(some, kind="stable")
        classes, starts = np.unique(some[order], return_index=True)
        sums[classes] += np.add.reduceat(rows[start + order], starts, axis=0, dtype=np.float64)


def non_finite(X: FloatArray, weight: DoubleArray) -> str:
    """Say why the loss of a block of rows is not finite."""
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        return (
            f"training rows have NaN or Inf: {len(bad)} of the {len(X)} rows of a block, its row {bad[0]} "
            "first: run `ltstore verify`, or look at the sampler if the rows are synthetic"
        )
    return (
        f"the loss is not finite though the rows are: largest |x| {np.abs(X).max():.3g}, largest weight "
        f"{np.abs(weight).max():.3g}: normalize or scale the rows, or raise l2"
    )
