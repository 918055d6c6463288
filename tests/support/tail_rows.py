"""Rows of a few classes of very different sizes and shapes, samplers fitted to them, and checks of a law."""

from __future__ import annotations

import numpy as np

from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.stats import class_moments

COUNTS = (80, 60, 6, 1)
D, RANK = 6, 3
DRAWS = 40_000


def made_rows(counts=COUNTS, *, normalize=False, d=D, seed=5):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = 3 * rng.normal(size=(len(counts), d))
    shapes = rng.normal(size=(len(counts), d, d)) * np.linspace(1.5, 0.2, d)
    X = centres[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(len(labels), d)))
    return ArrayRows(X, labels, class_names="abcdefgh"[: len(counts)], normalize=normalize)


def fitted(sampler, rows, *, rank=RANK, k=2):
    """Return (the sampler, moments, donors)."""
    moments = class_moments(rows, rank=rank)
    donors = class_donors(moments.means, moments.counts, k=k)
    return sampler.fit(rows, moments, donors), moments, donors


def of_class(rows, c):
    return rows.read(0, rows.n_samples)[rows.labels == c].astype(np.float64)


def low_rank(moments, full):
    """What of a D x D matrix the low-rank + diagonal form keeps."""
    U = moments.basis
    outside = np.eye(len(U)) - U @ U.T
    return U @ (U.T @ full @ U) @ U.T + np.diag(np.diag(outside @ full @ outside))


def borrowed(rows, moments, donors, c, nu, donor_share):
    """The covariance S' of the samplers that borrow, from its formula."""
    own = of_class(rows, c)
    n = len(own)
    scatter = (own - own.mean(axis=0)).T @ (own - own.mean(axis=0))
    target = moments.pooled
    pairs = [(h, w) for h, w in zip(donors.class_ids[c], donors.weights[c], strict=True) if h >= 0]
    if pairs:
        lent = sum(w * np.cov(of_class(rows, h).T) for h, w in pairs)
        target = donor_share * lent + (1 - donor_share) * target
    return low_rank(moments, (scatter + nu * target) / (n - 1 + nu))


def pulled(rows, donors, c, pull, kappa):
    """mu' with the donors' mean as the prior."""
    mean = of_class(rows, c).mean(axis=0)
    pairs = [(h, w) for h, w in zip(donors.class_ids[c], donors.weights[c], strict=True) if h >= 0]
    if not pairs:
        return mean
    toward = sum(w * of_class(rows, h).mean(axis=0) for h, w in pairs)
    return mean + pull * kappa / (kappa + len(of_class(rows, c))) * (toward - mean)


def assert_law(X, mean, covariance):
    """Mean and covariance of drawn rows are these, to five standard errors of the draws."""
    X = X.astype(np.float64)
    n = len(X)
    error = np.sqrt(np.diag(covariance) / n)
    np.testing.assert_array_less(np.abs(X.mean(axis=0) - mean), 5 * error + 1e-5)
    centred = X - X.mean(axis=0)
    products = np.einsum("ni,nj->nij", centred, centred)
    np.testing.assert_array_less(
        np.abs(products.mean(axis=0) - covariance), 5 * products.std(axis=0) / np.sqrt(n) + 1e-5
    )
