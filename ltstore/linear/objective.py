"""The function that training makes small, and its gradient, in one pass over a stream.

With q the class shares of the stream, m their mean row, M the metric and s its mean eigenvalue:

    z(x)    = W (x - m) + b + tau log q
    f(W, b) = mean over rows of (logsumexp(z) - z[y])  +  l2/2 tr(W M W')        penalty "whitened"
                                                       +  l2/2 s tr(W W')        penalty "plain"

With an implicit term, B of `ltstore.sampling.implicit` is added to the logits of each row by its label y,
z_j(x) + B[y, j]: the loss then bounds the mean loss over infinitely many rows drawn around x. B depends on W; the
gradient is exact, and f stays convex (B is a convex quadratic in W, logsumexp is convex and grows with each logit).

The bias is not penalised. Rows are centred because an uncentred mean couples bias and weight; it costs
nothing, being W m subtracted from the offsets and sum(g) m' from the gradient.

A class without any row (q = 0) has no logarithm and no gradient. It is taken out of the softmax by an offset
of EMPTY_CLASS_BIAS, which the saved bias keeps, so that it is never predicted and every number stays finite.

References
----------
Menon et al. 2021, "Long-tail learning via logit adjustment", equation 10; Ren et al. 2020, "Balanced
meta-softmax", for tau = 1. Wang et al. 2019, "Implicit semantic data augmentation for deep networks", for B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ltstore.errors import DataError
from ltstore.kernels.contract import SoftmaxTerms
from ltstore.kernels.dispatch import load_backend
from ltstore.linear.metric import Metric
from ltstore.sampling.covariance import LowRankCovariance
from ltstore.sampling.implicit import implicit_bias, implicit_gradient
from ltstore.stream import TrainingStream
from ltstore.types import DoubleArray, FloatArray, IntArray

EMPTY_CLASS_BIAS = -1e9
_IMPLICIT_ROWS = 1024  # at once: what B adds to their logits is a copy of them


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
    grad_bias : (C,) float64
    """

    value: float
    loss: float
    grad_weight: DoubleArray
    grad_bias: DoubleArray


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
        m, any point near the mean of the stream: the minimum does not depend on it.
    tau, l2 : float
    penalty : {"whitened", "plain"}
    backend : str
        A resolved name.
    implicit : ImplicitTerm, optional

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
    ) -> None:
        self._stream = stream
        self._metric = metric
        self._center = center
        self._l2 = l2
        self._implicit = implicit
        self._whitened = penalty == "whitened"
        self._kernel = load_backend(backend)
        self.shares = stream.class_shares
        self.empty = self.shares == 0
        log_shares = np.log(np.where(self.empty, 1.0, self.shares))
        self._adjustment = np.where(self.empty, EMPTY_CLASS_BIAS, tau * log_shares)
        # With this bias and W = 0 every row's softmax is q, whatever tau is.
        self.start_bias: DoubleArray = (1.0 - tau) * log_shares

    def evaluate(self, weight: DoubleArray, bias: DoubleArray) -> Evaluation:
        """Return value and gradient at (weight, bias), both for centred rows.

        Raises
        ------
        DataError
            The loss is not finite.
        """
        weight32 = weight.astype(np.float32)
        terms = SoftmaxTerms((bias + self._adjustment - weight @ self._center).astype(np.float32))
        grad_weight = np.zeros(weight.shape)
        grad_bias = np.zeros(len(bias))
        between = upstream = None
        if self._implicit is not None:
            between = implicit_bias(weight, *self._implicit).astype(np.float32)
            upstream = np.zeros(between.shape)
        loss, total = 0.0, 0.0
        logits: FloatArray = np.empty((0, len(bias)), np.float32)
        for X, labels, weights in self._stream:
            n = len(X)
            if n > len(logits):
                logits = np.empty((n, len(bias)), np.float32)
            block = logits[:n]
            np.matmul(X, weight32.T, out=block)
            if between is not None:
                _add_between(block, labels, between)
            block_loss = self._kernel(block, labels, terms, weights)
            if not np.isfinite(block_loss):
                raise DataError(_non_finite(X, weight))
            loss += block_loss
            total += n if weights is None else float(weights.sum(dtype=np.float64))
            grad_weight += block.T @ X
            if upstream is not None:
                _sum_by_class(block, labels, upstream)
            grad_bias += block.sum(axis=0, dtype=np.float64)
        grad_weight -= np.outer(grad_bias, self._center)
        if self._implicit is not None and upstream is not None:
            grad_weight += implicit_gradient(weight, *self._implicit, upstream)
        pull = self._penalty_gradient(weight, weight32)
        return Evaluation(
            value=loss / total + 0.5 * float(np.vdot(weight, pull)),
            loss=loss / total,
            grad_weight=grad_weight / total + pull,
            grad_bias=grad_bias / total,
        )

    def _penalty_gradient(self, weight: DoubleArray, weight32: FloatArray) -> DoubleArray:
        if self._whitened:
            return self._l2 * (weight32 @ self._metric.matrix).astype(np.float64)
        return self._l2 * self._metric.scale * weight


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


def _non_finite(X: FloatArray, weight: DoubleArray) -> str:
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
