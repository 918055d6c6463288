"""Class covariances as low rank + diagonal, shrunk toward those of the donors and the pooled one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltstore.sampling.lending import Lending
from ltstore.types import DoubleArray, IntArray, Moments


@dataclass(frozen=True)
class LowRankCovariance:
    """``S_c = U inside_c U' + diag(outside_c)`` for every class.

    Attributes
    ----------
    basis : (D, r) float64
        U, orthonormal; not a copy.
    inside : (C, r, r) float64
    outside : (C, D) float64
        Not negative.
    """

    basis: DoubleArray
    inside: DoubleArray
    outside: DoubleArray


@dataclass(frozen=True)
class BorrowedCovariance(LowRankCovariance):
    """S' of every class, and what it is mixed of.

    Attributes
    ----------
    shares : (C, k + 2) float64
        Of ``S / (n - 1)``, of each donor's ``S_h / (n_h - 1)``, and of the pooled covariance; rows sum to 1.
    donor_ids : (C, k) int64
        -1 where there is none.
    """

    shares: DoubleArray
    donor_ids: IntArray


def pooled_parts(moments: Moments) -> tuple[DoubleArray, DoubleArray]:
    """Return the pooled covariance inside the basis, (r, r), and on the diagonal outside it, (D,)."""
    basis = moments.basis
    return basis.T @ moments.pooled @ basis, _outside_diagonal(moments.pooled, basis)


def borrowed_covariance(
    moments: Moments, lending: Lending, *, nu: float, donor_share: float
) -> BorrowedCovariance:
    """Return ``S' = (S + nu T) / (n - 1 + nu)`` of every class, S its scatter.

    ``T = w sum_h weight_h S_h / (n_h - 1) + (1 - w) pooled``; the pooled covariance alone where a class has no
    donor.

    Parameters
    ----------
    moments : Moments
    lending : Lending
    nu : float
        > 0: how many rows T counts for.
    donor_share : float
        w in [0, 1].

    References
    ----------
    Posterior mean of an inverse-Wishart prior, Murphy (2012) "Machine Learning", section 4.6.2.
    """
    n = moments.counts.astype(np.float64)
    inside, outside = pooled_parts(moments)
    w = np.where(lending.borrows, donor_share, 0.0)
    own_share = 1.0 / np.maximum(n - 1, 1)
    target_inside = w[:, None, None] * lending.mix(moments.scatter, own_share)
    target_inside += (1 - w)[:, None, None] * inside
    target_outside = w[:, None] * lending.mix(moments.residual, own_share) + (1 - w)[:, None] * outside
    divisor = np.maximum(n - 1, 0) + nu
    lent = (nu * w / divisor)[:, None] * lending.weights
    own = np.maximum(n - 1, 0) / divisor
    return BorrowedCovariance(
        basis=moments.basis,
        inside=(moments.scatter + nu * target_inside) / divisor[:, None, None],
        outside=(moments.residual + nu * target_outside) / divisor[:, None],
        shares=np.column_stack([own, lent, nu * (1 - w) / divisor]),
        donor_ids=lending.donor_ids,
    )


def borrowed_variance(
    counts: IntArray,
    total_scatter: DoubleArray,
    pooled_variance: float,
    lending: Lending,
    *,
    nu: float,
    donor_share: float,
) -> DoubleArray:
    """Return (C,) the trace of `borrowed_covariance`, from the traces alone.

    Parameters
    ----------
    counts : (C,) int64
    total_scatter : (C,) float64
        Sum of squared distances of a class's rows from their mean.
    pooled_variance : float
        The trace of the pooled covariance.
    """
    n = counts.astype(np.float64)
    w = np.where(lending.borrows, donor_share, 0.0)
    target = w * lending.mix(total_scatter, 1.0 / np.maximum(n - 1, 1)) + (1 - w) * pooled_variance
    variance: DoubleArray = (total_scatter + nu * target) / (np.maximum(n - 1, 0) + nu)
    return variance


def total_scatter(moments: Moments) -> DoubleArray:
    """Return (C,) the trace of each class's scatter."""
    total: DoubleArray = np.trace(moments.scatter, axis1=1, axis2=2) + moments.residual.sum(axis=1)
    return total


def square_roots(matrices: DoubleArray) -> DoubleArray:
    """L with L L' = S for a stack of symmetric positive semidefinite S; unlike Cholesky, singular ones too."""
    values, vectors = np.linalg.eigh(matrices)
    roots: DoubleArray = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return roots


def _outside_diagonal(covariance: DoubleArray, basis: DoubleArray) -> DoubleArray:
    """Diagonal of (I - UU') S (I - UU'), never below 0."""
    projected = covariance @ basis
    inside = basis.T @ projected
    diagonal = (
        np.diag(covariance)
        - 2 * np.einsum("dr,dr->d", projected, basis)
        + np.einsum("dr,rs,ds->d", basis, inside, basis, optimize=True)
    )
    clipped: DoubleArray = np.maximum(diagonal, 0.0)
    return clipped
