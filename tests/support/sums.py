"""Sums of a few rows of a matrix each, and the sparse matrix that they are products with."""

from __future__ import annotations

import numpy as np


def sums_case(n, n_terms, n_atoms, n_columns):
    """Indices, factors, some of them 0, atoms, and the dense (n, n_atoms) matrix."""
    rng = np.random.default_rng([n, n_terms, n_atoms, n_columns])
    indices = rng.integers(0, n_atoms, (n, n_terms))
    factors = rng.standard_normal((n, n_terms)).astype(np.float32)
    factors[rng.random(factors.shape) < 0.2] = 0
    atoms = rng.standard_normal((n_atoms, n_columns)).astype(np.float32)
    dense = np.zeros((n, n_atoms))
    np.add.at(dense, (np.arange(n)[:, None], indices), factors)
    return indices, factors, atoms, dense
