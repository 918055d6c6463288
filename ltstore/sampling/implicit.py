"""`implicit`: infinitely many Gaussian rows around every row, as a bias between classes. Not a row sampler."""

from __future__ import annotations

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.sampling.covariance import LowRankCovariance
from ltstore.types import DoubleArray


def implicit_bias(weight: DoubleArray, covariance: LowRankCovariance, strength: float) -> DoubleArray:
    """Return ``B[y, j] = (lambda / 2) (w_j - w_y)' S_y (w_j - w_y)``: (C, C) float64, new, 0 on the diagonal.

    What it is equal to: for Gaussian noise e ~ N(0, lambda S_y),

    ``E exp((w_j - w_y)' e) = exp(B[y, j])``    exactly, and so by Jensen's inequality
    ``E [logsumexp_j(z_j(x + e)) - z_y(x + e)] <= logsumexp_j(z_j(x) + B[y, j]) - z_y(x)``

    for the logits z = W x + b of a row x of class y. Training on the right side is training on an upper bound of the
    mean loss over infinitely many rows drawn around x, at the price of a few matrix products a pass: B does not depend
    on x.

    Parameters
    ----------
    weight : (C, D) float64
    covariance : LowRankCovariance
        S_y of the C classes.
    strength : float
        lambda >= 0; 1 is noise of the class's own covariance.

    Raises
    ------
    ConfigError
        `strength` is negative or not finite.
    DataError
        Weight and covariance are of other classes or features.

    Notes
    -----
    2 C D r + 2 C^2 (r^2 + r + 2 D) flops; memory 8 C^2 bytes a few times over (0.5 GB each at C = 8,142).

    References
    ----------
    Wang et al. (2019) "Implicit semantic data augmentation for deep networks" (ISDA), NeurIPS, proposition 1.
    """
    _check(weight, covariance, strength)
    inside, outside = covariance.inside, covariance.outside
    n_classes, rank = inside.shape[:2]
    V = weight @ covariance.basis
    AV = np.matmul(inside, V[:, :, None])[:, :, 0]
    squares = (V[:, :, None] * V[:, None, :]).reshape(n_classes, rank * rank)
    quadratic = inside.reshape(n_classes, rank * rank) @ squares.T + outside @ np.square(weight).T
    cross = AV @ V.T + (outside * weight) @ weight.T
    own = np.diagonal(cross)
    bias: DoubleArray = 0.5 * strength * (quadratic - 2 * cross + own[:, None])
    np.maximum(bias, 0.0, out=bias)  # rounding
    np.fill_diagonal(bias, 0.0)
    return bias


def implicit_gradient(
    weight: DoubleArray, covariance: LowRankCovariance, strength: float, upstream: DoubleArray
) -> DoubleArray:
    """Return the gradient of ``sum_yj upstream[y, j] B[y, j]`` with respect to the weight: (C, D) float64, new.

    ``d / d w_j = lambda sum_y G_yj S_y (w_j - w_y) - lambda S_j sum_k G_jk (w_k - w_j)``.

    Parameters
    ----------
    weight, covariance, strength
        As in `implicit_bias`.
    upstream : (C, C) float64
        G, the gradient of what is minimised with respect to B.
    """
    _check(weight, covariance, strength)
    inside, outside = covariance.inside, covariance.outside
    n_classes, rank = inside.shape[:2]
    V = weight @ covariance.basis
    total = upstream.sum(axis=1)[:, None]
    # Inside the basis: as j, then as y.
    mixed = (upstream.T @ inside.reshape(n_classes, rank * rank)).reshape(inside.shape)
    low = np.matmul(mixed, V[:, :, None])[:, :, 0]
    low -= upstream.T @ np.matmul(inside, V[:, :, None])[:, :, 0]
    low -= np.matmul(inside, (upstream @ V - total * V)[:, :, None])[:, :, 0]
    # On the diagonal.
    gradient = (upstream.T @ outside) * weight - upstream.T @ (outside * weight)
    gradient -= outside * (upstream @ weight - total * weight)
    gradient += low @ covariance.basis.T
    scaled: DoubleArray = strength * gradient
    return scaled


def _check(weight: DoubleArray, covariance: LowRankCovariance, strength: float) -> None:
    if not (np.isfinite(strength) and strength >= 0):
        raise ConfigError(f"strength must be finite and >= 0, found {strength}")
    if weight.shape != covariance.outside.shape:
        raise DataError(
            f"weight is of {weight.shape} (classes, features), the covariances of {covariance.outside.shape}: "
            "compute moments from the rows that are trained on"
        )
