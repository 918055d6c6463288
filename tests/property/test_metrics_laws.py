"""Laws that every set of predictions obeys."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ltstore.metrics import class_accuracy, confusion, confusion_pairs, count_groups, evaluate_predictions

C = 5
COLUMNS = st.lists(st.tuples(st.integers(-1, C - 1), st.integers(0, C - 1)), min_size=1, max_size=60)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    y, predicted = np.array(pairs).T
    return y, predicted


@given(st.lists(st.integers(0, 1000)))
def test_every_class_is_in_exactly_one_group(counts: list[int]) -> None:
    assert (sum(mask.astype(int) for mask in count_groups(counts).values()) == np.ones(len(counts))).all()


@given(COLUMNS)
def test_pairs_are_the_nonzero_cells_of_the_matrix(pairs: list[tuple[int, int]]) -> None:
    y, predicted = columns(pairs)
    dense = np.zeros((C, C), np.int64)
    true_ids, predicted_ids, counts = confusion_pairs(y, predicted, C)
    dense[true_ids, predicted_ids] = counts
    np.testing.assert_array_equal(dense, confusion(y, predicted, C))
    assert (counts > 0).all()


@given(COLUMNS, st.permutations(range(C)), st.integers(0, 2**32))
def test_order_of_rows_and_names_of_classes_do_not_matter(
    pairs: list[tuple[int, int]], permutation: list[int], seed: int
) -> None:
    y, predicted = columns(pairs)
    renamed = np.array(permutation)
    order = np.random.default_rng(seed).permutation(len(y))
    new_y = np.where(y < 0, -1, renamed[y])
    accuracy = class_accuracy(y, predicted, C)
    np.testing.assert_array_equal(class_accuracy(new_y[order], renamed[predicted][order], C)[renamed], accuracy)


@given(COLUMNS, st.lists(st.integers(0, 300), min_size=C, max_size=C))
def test_overall_is_the_row_weighted_and_balanced_the_plain_mean(
    pairs: list[tuple[int, int]], counts: list[int]
) -> None:
    y, predicted = columns(pairs)
    if (y < 0).all():
        return
    found = evaluate_predictions(
        y, predicted, class_counts=counts, class_names=[str(c) for c in range(C)], n_bootstrap=3
    )
    tested = found.test_counts > 0
    accuracy = found.class_accuracy[tested]
    np.testing.assert_allclose(found.overall.value, np.average(accuracy, weights=found.test_counts[tested]))
    np.testing.assert_allclose(found.balanced.value, accuracy.mean())
    groups = [(count_groups(counts)[name] & tested).sum() for name in ("many", "medium", "few")]
    means = [0.0 if g is None else g.value for g in (found.many, found.medium, found.few)]
    np.testing.assert_allclose(np.average(means, weights=groups), found.balanced.value)
    assert found.worst.accuracy == accuracy.min() <= found.worst_tenth
