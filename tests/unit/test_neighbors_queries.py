"""What queries and rows of any length, bad numbers and equal rows come to."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.neighbors import ExactIndex, RestrictedIndex, build_index
from ltstore.neighbors.metric import METRICS, ready_queries, unit_rows
from ltstore.rows import ArrayRows

X = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
UNIT = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def test_unit_rows_are_taken_as_they_are_and_others_are_copied() -> None:
    assert unit_rows(UNIT, "cosine") is UNIT
    assert ready_queries(UNIT, 1, None, 40, "cosine") is UNIT
    one_off = UNIT.copy()
    one_off[30] *= np.float32(1 + 2e-6)
    for longer in (X, one_off, 1e30 * X, np.float32(1e-30) * X):
        before = longer.copy()
        for found in (unit_rows(longer, "cosine"), ready_queries(longer, 1, None, 40, "cosine")):
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=2e-7)
        np.testing.assert_array_equal(longer, before)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_numbers_are_named_beside_huge_ones(metric: str, bad: float) -> None:
    queries = np.concatenate([UNIT[:3], 1e30 * X[:3]])
    np.testing.assert_array_equal(ready_queries(queries, 1, None, 40, "l2"), queries)
    queries[4, 7] = bad
    with pytest.raises(DataError, match="query 4 has NaN or Inf"):
        ready_queries(queries, 1, None, 40, metric)


@pytest.mark.parametrize("kind", ["exact", "sq8", "ivfpq"])
def test_rows_that_say_they_are_unit_to_half_precision_are_scaled(kind: str) -> None:
    noise = np.random.default_rng(1).normal(size=(2000, 40))
    rows = ArrayRows(np.repeat(UNIT, 40, axis=0) + 0.02 * noise, normalize=True)
    coarse = ArrayRows(rows.read(0, 2000).astype(np.float16), encoder=rows.encoder)
    assert coarse.normalized
    index: RestrictedIndex = (
        ExactIndex(coarse) if kind == "exact" else build_index(coarse, kind=kind, device="cpu")
    )
    ids, similarity = index.search(UNIT[:5], 10)
    found = coarse.take(ids.ravel()).reshape(5, 10, 40).astype(np.float64)
    cosines = np.einsum("qkd,qd->qk", found, UNIT[:5]) / np.linalg.norm(found, axis=2)
    np.testing.assert_allclose(similarity, cosines, atol=1e-6)


@pytest.mark.parametrize("kind", ["flat", "ivf", "sq8", "ivfpq"])
def test_equal_rows_come_in_order_of_id(kind: str) -> None:
    rows = ArrayRows(np.tile(X, (20, 1)))
    ids, similarity = build_index(rows, kind=kind, device="cpu", recall=1.0).search(X, 20)
    np.testing.assert_array_equal(ids, np.arange(50)[:, None] + 50 * np.arange(20))
    np.testing.assert_allclose(similarity, 1, atol=1e-6)
