"""Sums of rows and the gradient back, against the dense products that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.kernels.combine import combine_rows, scatter_rows
from support.sums import sums_case


@pytest.mark.parametrize("n", [0, 1, 5, 64])
@pytest.mark.parametrize("n_terms", [0, 1, 2, 9])
@pytest.mark.parametrize("n_columns", [1, 15, 16, 17, 101])
def test_both_are_the_products_of_the_sparse_matrix(n, n_terms, n_columns):
    indices, factors, atoms, dense = sums_case(n, n_terms, 7, n_columns)
    out = np.full((n, n_columns), np.nan, np.float32)
    assert combine_rows(indices, factors, atoms, out) is out
    np.testing.assert_allclose(out, dense @ atoms, atol=2e-6 * max(n_terms, 1))
    rows = np.random.default_rng(1).standard_normal((n, n_columns)).astype(np.float32)
    grown = atoms.copy()
    scatter_rows(indices, factors, rows, grown)
    np.testing.assert_allclose(grown, atoms + dense.T @ rows, atol=1e-5 * max(n, 1))


def test_a_sum_does_not_depend_on_its_block():
    indices, factors, atoms, _ = sums_case(50, 9, 20, 37)
    whole = combine_rows(indices, factors, atoms, np.empty((50, 37), np.float32))
    for start, stop in ((0, 1), (1, 20), (20, 50)):
        part = np.empty((stop - start, 37), np.float32)
        combine_rows(indices[start:stop], factors[start:stop], atoms, part)
        np.testing.assert_array_equal(part, whole[start:stop])


def test_a_term_of_factor_zero_is_none():
    atoms = np.array([[np.nan], [2.0]], np.float32)
    indices, factors = np.array([[0, 1]]), np.array([[0, 3]], np.float32)
    assert combine_rows(indices, factors, atoms, np.empty((1, 1), np.float32)) == 6
    scatter_rows(indices, factors, np.ones((1, 1), np.float32), atoms)
    assert np.isnan(atoms[0, 0])
    assert atoms[1, 0] == 5


@pytest.mark.parametrize("index", [-1, 3])
def test_what_is_outside_is_refused(index):
    atoms = np.zeros((3, 2), np.float32)
    indices, factors = np.array([[0, index]]), np.ones((1, 2), np.float32)
    for function in (combine_rows, lambda i, f, a, o: scatter_rows(i, f, o, a)):
        with pytest.raises(DataError, match="outside the 3 atoms"):
            function(indices, factors, atoms, np.zeros((1, 2), np.float32))
        with pytest.raises(DataError, match="must be"):
            function(np.array([[0, 1]]), factors[:, :1], atoms, np.zeros((1, 2), np.float32))
        with pytest.raises(DataError, match="must be"):
            function(np.array([[0, 1]]), factors, atoms, np.zeros((1, 3), np.float32))
