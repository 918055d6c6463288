"""Rows that are sums of a few rows of a matrix: their values, and the gradient with respect to that matrix.

With A the sparse (n, m) matrix that has factors[i, t] at column indices[i, t], the two products ``A @ atoms`` and
``A.T @ rows``. A linear function of synthetic rows that are such sums needs no more: it is the sum of the functions of
the rows that they are made of.
"""

from __future__ import annotations

import numpy as np

from ltstore.errors import DataError
from ltstore.types import FloatArray, IntArray


def combine_rows(indices: IntArray, factors: FloatArray, atoms: FloatArray, out: FloatArray) -> FloatArray:
    """Overwrite and return ``out[i] = sum_t factors[i, t] atoms[indices[i, t]]``.

    Parameters
    ----------
    indices : (n, t) int64
        In [0, m). A term of factor 0 is skipped.
    factors : (n, t) float32
    atoms : (m, d) float32
    out : (n, d) float32

    Raises
    ------
    DataError
        A shape or dtype differs, or an index is outside the atoms.

    Notes
    -----
    n t d multiplications and additions, at the speed at which the atoms come from memory; no memory of its own.
    """
    from ltstore.kernels import combine_numba

    _check(indices, factors, atoms, out)
    combine_numba.sums(indices, factors, atoms, out)
    return out


def scatter_rows(indices: IntArray, factors: FloatArray, rows: FloatArray, atoms: FloatArray) -> None:
    """Add factors[i, t] rows[i] to atoms[indices[i, t]], in place: the transpose of `combine_rows`.

    Parameters
    ----------
    indices : (n, t) int64
    factors : (n, t) float32
    rows : (n, d) float32
    atoms : (m, d) float32
        Modified.

    Raises
    ------
    DataError
        As `combine_rows`.
    """
    from ltstore.kernels import combine_numba

    _check(indices, factors, atoms, rows)
    combine_numba.scatter(indices, factors, rows, atoms)


def _check(indices: IntArray, factors: FloatArray, atoms: FloatArray, rows: FloatArray) -> None:
    n, n_columns = len(indices), atoms.shape[1]
    for name, array, shape, dtype in (
        ("indices", indices, (n, *indices.shape[1:]), np.int64),
        ("factors", factors, indices.shape, np.float32),
        ("atoms", atoms, (len(atoms), n_columns), np.float32),
        ("rows", rows, (n, n_columns), np.float32),
    ):
        if array.shape != shape or array.dtype != dtype:
            raise DataError(
                f"{name} must be {shape} of {np.dtype(dtype)}, found {array.shape} of {array.dtype}"
            )
    if indices.size and (indices.min() < 0 or indices.max() >= len(atoms)):
        raise DataError(f"an index of {indices.min()} to {indices.max()} is outside the {len(atoms)} atoms")
