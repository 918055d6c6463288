"""Who lends to whom."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.neighbors import ExactIndex, class_donors, head_classes, row_donors
from ltstore.rows import ArrayRows, class_counts
from ltstore.types import Donors

COUNTS = np.array([60, 50, 40, 5, 2, 0])
ANGLES = np.radians([0, 40, 80, 35, 85, 10])
MEANS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
MEANS[5] = 0


def made_rows(counts: np.ndarray = COUNTS) -> ArrayRows:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    angle = ANGLES[labels] + rng.normal(0, 0.02, len(labels))
    return ArrayRows(np.stack([np.cos(angle), np.sin(angle)], axis=1), labels, class_names="abcdef")


def both(counts: np.ndarray, k: int) -> list[Donors]:
    rows = made_rows(counts)
    return [class_donors(MEANS, counts, k=k), row_donors(ExactIndex(rows), rows, class_counts(rows), k=k)]


def test_nearest_head_classes_lend() -> None:
    for donors in both(COUNTS, 2):
        np.testing.assert_array_equal(donors.head, [True, True, True, False, False, False])
        assert donors.class_ids[3, 0] == 1
        assert donors.class_ids[4, 0] == 2
        assert (donors.class_ids[[0, 1, 2, 5]] == -1).all()
        np.testing.assert_allclose(donors.weights.sum(axis=1), [0, 0, 0, 1, 1, 0])
        np.testing.assert_array_equal(np.isnan(donors.similarity), donors.class_ids == -1)
    assert both(COUNTS, 2)[0].class_ids[3].tolist() == [1, 0]


def test_weights_are_the_softmax_of_cosines() -> None:
    donors = class_donors(MEANS, COUNTS, k=3, temperature=0.2)
    cosines = np.cos(ANGLES[3] - ANGLES[[1, 0, 2]])
    np.testing.assert_allclose(donors.similarity[3], cosines)
    expected = np.exp(cosines / 0.2)
    np.testing.assert_allclose(donors.weights[3], expected / expected.sum())
    cold = class_donors(MEANS, COUNTS, k=3, temperature=1e-9)
    np.testing.assert_allclose(cold.weights[3], [1, 0, 0], atol=1e-12)


def test_row_votes_are_counted() -> None:
    """Two tail rows, two neighbours each: three votes for class 0 and one for class 1."""
    X = np.array([[1, 0], [1, 0.01], [1, -0.01], [0, 1], [0.01, 1], [-0.01, 1], [1, 0.002], [0.72, 0.7]])
    rows = ArrayRows(X, [0, 0, 0, 1, 1, 1, 2, 2], class_names="abc")
    donors = row_donors(ExactIndex(rows), rows, np.array([3, 3, 1]), k=2, k_rows=2)
    assert donors.class_ids[2].tolist() == [0, -1]
    rows = ArrayRows(X[[0, 3, 6, 7]], [0, 1, 2, 2], class_names="abc")
    donors = row_donors(ExactIndex(rows), rows, np.array([4, 4, 2]), k=2, k_rows=1)
    assert sorted(donors.class_ids[2].tolist()) == [-1, 0]


def test_a_head_class_borrows_from_larger_ones_only() -> None:
    """Class 1 lies on class 2, which is head but of its own size: only the far and large class 0 may lend."""
    counts = np.array([100, 40, 45, 5, 5, 5])
    centres = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0.1], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
    labels = np.repeat(np.arange(6), counts)
    X = centres[labels] + 0.05 * np.random.default_rng(2).normal(size=(200, 3))
    rows = ArrayRows(X, labels, class_names="abcdef")
    donors = row_donors(ExactIndex(rows), rows, counts, k=2, k_rows=100)
    assert donors.head.tolist() == [True, True, True, False, False, False]
    assert donors.class_ids[1].tolist() == [0, -1]


@pytest.mark.parametrize("counts", [[10, 10, 10, 10, 10, 10], [7, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
def test_nobody_borrows(counts: list[int]) -> None:
    for donors in both(np.array(counts), 3):
        assert (donors.class_ids == -1).all()
        assert not donors.weights.any()
        assert donors.class_ids.shape == (6, 3)


def test_a_donor_is_clearly_larger_and_never_the_class_itself() -> None:
    rng = np.random.default_rng(1)
    counts = np.array([300, 200, 120, 100, 90, 40, 12, 3, 1, 0])
    donors = class_donors(rng.normal(size=(10, 4)), counts, k=20)
    for c, ids in enumerate(donors.class_ids):
        lenders = ids[ids >= 0]
        assert c not in lenders
        assert (counts[lenders] >= 2 * counts[c]).all()
        assert donors.head[lenders].all()
    assert donors.class_ids.shape == (10, 20)


def test_head_is_free_of_scale() -> None:
    counts = np.array([600, 300, 50, 10, 0])
    np.testing.assert_array_equal(head_classes(counts), [True, True, False, False, False])
    np.testing.assert_array_equal(head_classes(counts * 10), head_classes(counts))
    cifar = np.array([int(500 * 0.01 ** (i / 99)) for i in range(100)])
    assert head_classes(cifar).sum() == 33


def test_bad_settings() -> None:
    rows = made_rows()
    with pytest.raises(ConfigError, match="temperature"):
        class_donors(MEANS, COUNTS, temperature=0)
    with pytest.raises(DataError, match="do not fit"):
        class_donors(MEANS, COUNTS[:3])
    with pytest.raises(ConfigError, match="similarities"):
        row_donors(ExactIndex(rows, "l2"), rows, COUNTS)
    with pytest.raises(DataError, match="not of these rows"):
        row_donors(ExactIndex(rows), rows.select(np.arange(4)), COUNTS)
    with pytest.raises(ConfigError, match="k_rows"):
        row_donors(ExactIndex(rows), rows, COUNTS, k_rows=0)
