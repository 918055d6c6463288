"""Sums of a few rows of a matrix each, and the gradient back to those rows, compiled (see `ltstore.kernels.combine`).

Term by term in the order given, with no fast-math flag: a sum has the same bits in whatever block it is made. Loops
over the columns vectorise.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ltstore.types import FloatArray, IntArray


@njit(cache=True, nogil=True)
def sums(indices: IntArray, factors: FloatArray, atoms: FloatArray, out: FloatArray) -> None:
    """Overwrite out[i] with sum_t factors[i, t] atoms[indices[i, t]]."""
    n, n_terms = indices.shape
    n_columns = atoms.shape[1]
    for i in range(n):
        row = out[i]
        for j in range(n_columns):
            row[j] = np.float32(0.0)
        for t in range(n_terms):
            factor = factors[i, t]
            if factor != 0:
                atom = atoms[indices[i, t]]
                for j in range(n_columns):
                    row[j] += factor * atom[j]


@njit(cache=True, nogil=True)
def scatter(indices: IntArray, factors: FloatArray, rows: FloatArray, atoms: FloatArray) -> None:
    """Add factors[i, t] rows[i] to atoms[indices[i, t]] for every i and t."""
    n, n_terms = indices.shape
    n_columns = atoms.shape[1]
    for i in range(n):
        row = rows[i]
        for t in range(n_terms):
            factor = factors[i, t]
            if factor != 0:
                atom = atoms[indices[i, t]]
                for j in range(n_columns):
                    atom[j] += factor * row[j]
