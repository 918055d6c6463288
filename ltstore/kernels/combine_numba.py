"""Sums of a few rows of a matrix each, and the gradient back to those rows, compiled (see `ltstore.kernels.combine`).

Four terms at a time in the order given, with no fast-math flag: a sum has the same bits in whatever block it is made.
Loops over the columns vectorise.
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
    used = np.empty(n_terms, np.int64)
    for i in range(n):
        row = out[i]
        row[:] = np.float32(0.0)
        n_used = 0
        for t in range(n_terms):
            if factors[i, t] != 0:
                used[n_used] = t
                n_used += 1
        whole = n_used - n_used % 4
        for k in range(0, whole, 4):
            s, t, u, v = used[k], used[k + 1], used[k + 2], used[k + 3]
            a, b, c, d = atoms[indices[i, s]], atoms[indices[i, t]], atoms[indices[i, u]], atoms[indices[i, v]]
            e, f, g, h = factors[i, s], factors[i, t], factors[i, u], factors[i, v]
            for j in range(n_columns):
                row[j] += ((e * a[j] + f * b[j]) + g * c[j]) + h * d[j]
        for k in range(whole, n_used):
            factor = factors[i, used[k]]
            atom = atoms[indices[i, used[k]]]
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
