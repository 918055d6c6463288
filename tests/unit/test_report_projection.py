"""The map: deterministic, fitted on real rows only, never more points than allowed."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.report import row_map


def clouds(n: int = 40, n_classes: int = 4, n_features: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(n_classes), n)
    centers = 6 * rng.normal(size=(n_classes, n_features))
    return (centers[labels] + rng.normal(size=(len(labels), n_features))).astype(np.float32), labels


def test_same_rows_same_map() -> None:
    X, y = clouds()
    first, second = (row_map(X, y, X[::7], y[::7], np.arange(4)) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)


def test_separate_classes_stay_separate() -> None:
    X, y = clouds()
    found = row_map(X, y, None, None, np.array([0, 2, 3]))
    assert found.method == "linear discriminants"
    assert set(found.class_ids) == {0, 2, 3}
    means = {c: found.points[found.class_ids == c].mean(axis=0) for c in (0, 2, 3)}
    for c in (0, 2, 3):
        own = np.linalg.norm(found.points[found.class_ids == c] - means[c], axis=1)
        others = [np.linalg.norm(means[c] - means[d]) for d in (0, 2, 3) if d != c]
        assert np.quantile(own, 0.9) < min(others) / 2


def test_synthetic_rows_do_not_move_the_plane() -> None:
    X, y = clouds()
    without = row_map(X, y, None, None, np.arange(4))
    strange = 1000 * np.ones((30, X.shape[1]), np.float32)
    strange[:, 0] *= -1
    with_them = row_map(X, y, strange, np.zeros(30, np.int64), np.arange(4))
    real = with_them.points[~with_them.synthetic]
    signs = np.sign(real[0] / without.points[0])  # an axis may point the other way, to its farthest row
    np.testing.assert_allclose(real * signs, without.points, atol=1e-8)
    assert with_them.synthetic.sum() == 30


def test_only_large_classes_give_up_rows() -> None:
    X, _ = clouds(n=100, n_classes=3)
    y = np.repeat([0, 1, 2], [280, 15, 5])
    found = row_map(X, y, None, None, np.arange(3), max_points=60)
    assert found.n_rows == 300
    assert np.bincount(found.class_ids).tolist() == [40, 15, 5]


def test_rows_keep_their_places_when_thinned() -> None:
    X, y = clouds()
    found = row_map(X, y, X[:80] + 100, y[:80], np.arange(4), max_points=50)
    assert len(found.points) <= 50
    assert found.n_rows == 240
    # rows moved by 100 in every feature must all lie on one side of those that were not
    moved = found.points[found.synthetic].mean(axis=0) - found.points[~found.synthetic].mean(axis=0)
    assert np.linalg.norm(moved) > 5
    assert set(found.class_ids[found.synthetic]) == {0, 1}


@pytest.mark.parametrize("n_rows, n_features", [(2, 5), (3, 1), (40, 1), (6, 2)])
def test_few_rows_or_features_still_make_a_map(n_rows: int, n_features: int) -> None:
    X = np.random.default_rng(0).normal(size=(n_rows, n_features)).astype(np.float32)
    found = row_map(X, np.arange(n_rows) % 2, None, None, np.arange(2))
    assert found.points.shape == (n_rows, 2)
    assert np.isfinite(found.points).all()
    assert found.method == "principal components"


def test_equal_rows_do_not_break_it() -> None:
    X = np.ones((12, 4), np.float32)
    found = row_map(X, np.arange(12) % 3, None, None, np.arange(3))
    assert np.isfinite(found.points).all()


def test_no_rows_of_the_classes_is_an_error() -> None:
    X, y = clouds()
    with pytest.raises(DataError, match="at least two real rows"):
        row_map(X, y, None, None, np.array([9]))
