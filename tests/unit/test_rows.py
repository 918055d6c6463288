"""Rows in memory."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import DataError, LabelError
from ltstore.rows import ArrayRows, class_counts, iter_blocks, normalize_rows
from ltstore.types import Rows


def test_array_rows_is_rows_and_reads_copies() -> None:
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows = ArrayRows(X, [0, 1, 1, -1], class_names=["a", "b"])
    assert isinstance(rows, Rows)
    block = rows.read(1, 3)
    block[:] = 0
    np.testing.assert_array_equal(rows.read(0, 4), X)
    np.testing.assert_array_equal(rows.take(np.array([3, 0, 3])), X[[3, 0, 3]])
    np.testing.assert_array_equal(class_counts(rows), [1, 2])


def test_normalize_keeps_zero_rows_and_input() -> None:
    X = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    rows = ArrayRows(X, normalize=True)
    np.testing.assert_allclose(rows.read(0, 2), [[0.6, 0.8], [0, 0]])
    assert X[0, 0] == 3
    assert normalize_rows(X) is X


def test_normalize_at_every_magnitude() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9, 300)) * 10.0 ** np.arange(-36, 36, 8)[:, None]
    X[4] = 0
    unit = normalize_rows(X.astype(np.float32))
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    expected = np.divide(X, norms, out=np.zeros_like(X), where=norms > 0)
    np.testing.assert_allclose(unit, expected, rtol=2e-6, atol=1e-7)


def test_blocks_cover_all_rows_once() -> None:
    X = np.random.default_rng(0).normal(size=(23, 2)).astype(np.float32)
    blocks = [(start, block.copy()) for start, block, _ in iter_blocks(ArrayRows(X), 5)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), X)
    assert [start for start, _ in blocks] == [0, 5, 10, 15, 20]
    assert list(iter_blocks(ArrayRows(np.zeros((0, 2))))) == []


def test_bad_arrays_are_named() -> None:
    X = np.zeros((3, 2))
    X[1, 0] = np.nan
    with pytest.raises(DataError, match="1 of 3 rows, first in row 1"):
        ArrayRows(X)
    with pytest.raises(LabelError, match="label 2 of row 1 is outside the 2 classes"):
        ArrayRows(np.zeros((2, 2)), [0, 2], class_names=["a", "b"])
    with pytest.raises(DataError, match="ascending"):
        ArrayRows(np.zeros((2, 2)), row_ids=[1, 1])
    with pytest.raises(DataError, match="shape"):
        ArrayRows(np.zeros(3))


def test_digest_follows_contents() -> None:
    X = np.ones((2, 2), np.float32)
    digests = {
        ArrayRows(X, [0, 1]).digest,
        ArrayRows(X, [1, 0]).digest,
        ArrayRows(X * 2, [0, 1]).digest,
        ArrayRows(X, [0, 1], row_ids=[0, 5]).digest,
        ArrayRows(X, [0, 1], normalize=True).digest,
    }
    assert len(digests) == 5
    assert ArrayRows(X, [0, 1]).digest == ArrayRows(X.copy(), [0, 1]).digest
