"""Class means pulled toward a prior mean by as much as their few rows leave open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltstore.sampling.lending import Lending
from ltstore.types import BoolArray, DoubleArray, IntArray

_PULL_MARGIN = 2.0


@dataclass(frozen=True)
class PulledMeans:
    """Means after the pull.

    Attributes
    ----------
    means : (C, D) float64
    pull_rows : float
        kappa, as given or estimated.
    """

    means: DoubleArray
    pull_rows: float


def pull_to_prior(
    counts: IntArray,
    means: DoubleArray,
    variance: float,
    toward: DoubleArray,
    error: DoubleArray,
    pulled: BoolArray,
    *,
    pull: float,
    pull_rows: float | None,
) -> PulledMeans:
    """Return ``mu' = mu + gamma kappa / (kappa + n) (m - mu)`` for the classes that are pulled.

    kappa = None estimates it by empirical Bayes: with a variance of sigma^2 within classes and delta^2 between a
    class mean and its prior mean, the pull of least expected squared error is
    (sigma^2 / n) / (sigma^2 / n + delta^2), so kappa = sigma^2 / delta^2. delta^2 is the average over pulled
    classes of ``|m - mu|^2 - sigma^2 (1 / n + error)``, the squared gap less what the sampling of both means adds to
    it. Twice the estimate is used: a head trained on neighbor-gauss rows did slightly better with it on held-out
    rows of three data sets (docs/methods.md). kappa is never more than the rows of the largest class, and 0 where
    nothing is pulled or nothing varies.

    Parameters
    ----------
    counts : (C,) int64
    means : (C, D) float64
    variance : float
        sigma^2, the trace of the within-class covariance.
    toward : (C, D) float64
        m - mu.
    error : (C,) float64
        Variance of m as an estimate of the prior mean, in units of sigma^2.
    pulled : (C,) bool
    pull : float
        gamma in [0, 1].
    pull_rows : float or None
        kappa >= 0.

    References
    ----------
    Efron and Morris (1973) "Stein's estimation rule and its competitors: an empirical Bayes approach", JASA 68.
    """
    if pull_rows is None:
        pull_rows = _estimate_pull_rows(counts, variance, toward, error, pulled)
    n = counts.astype(np.float64)
    share = np.divide(pull_rows, pull_rows + n, out=np.zeros_like(n), where=pull_rows + n > 0)
    strength = np.where(pulled, pull * share, 0.0)
    return PulledMeans(means + strength[:, None] * toward, float(pull_rows))


def pull_to_donors(
    counts: IntArray,
    means: DoubleArray,
    variance: float,
    lending: Lending,
    *,
    pull: float,
    pull_rows: float | None,
) -> PulledMeans:
    """Return the means of `pull_to_prior` with m the weighted mean of the donors' means.

    Its error is ``sum_h weight_h^2 / n_h``; a class without donors keeps its mean.
    """
    n = np.maximum(counts, 1)
    error = (lending.weights**2 / n[lending.ids]).sum(axis=1)
    toward = lending.mix(means) - means
    return pull_to_prior(
        counts, means, variance, toward, error, lending.borrows, pull=pull, pull_rows=pull_rows
    )


def _estimate_pull_rows(
    counts: IntArray, variance: float, toward: DoubleArray, error: DoubleArray, pulled: BoolArray
) -> float:
    if not pulled.any() or variance <= 0:
        return 0.0
    sampling = variance * (1 / np.maximum(counts, 1) + error)
    gap = float((np.square(toward).sum(axis=1) - sampling)[pulled].mean())
    largest = int(counts.max())
    return min(_PULL_MARGIN * variance / max(gap, variance / largest), float(largest))
