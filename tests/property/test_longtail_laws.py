"""What holds for every cut and every holdout."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ltstore.sources import exp_cut, step_cut, stratified_holdout

labels_lists = st.lists(st.integers(-1, 6), max_size=80)


@given(labels_lists, st.floats(1, 1000), st.integers(0, 2**32 - 1), st.sampled_from([exp_cut, step_cut]))
def test_a_cut_takes_labelled_rows_once_class_after_class(labels, imbalance, seed, cut) -> None:
    column = np.array(labels, np.int64)
    taken = cut(column, imbalance, n_classes=7, seed=seed)
    assert len(set(taken.tolist())) == len(taken)
    assert (column[taken] >= 0).all()
    assert (np.diff(column[taken]) >= 0).all()
    n_max = (column >= 0).sum() / 7
    assert (np.bincount(column[taken], minlength=7) <= n_max).all()


@given(st.integers(1, 30), st.integers(1, 9), st.floats(1, 500))
def test_a_cut_of_equal_classes_never_grows_along_the_classes(n, n_classes, imbalance) -> None:
    labels = np.tile(np.arange(n_classes), n)
    sizes = np.bincount(labels[exp_cut(labels, imbalance)], minlength=n_classes)
    assert sizes[0] == n
    assert (np.diff(sizes) <= 0).all()
    if n_classes > 1:
        assert abs(sizes[-1] - n / imbalance) <= 1


@given(labels_lists, st.floats(0.01, 0.99), st.integers(0, 1000))
def test_a_holdout_parts_the_labelled_rows_and_leaves_every_class_in_train(labels, fraction, seed) -> None:
    column = np.array(labels, np.int64)
    train, held = stratified_holdout(column, fraction, seed=seed)
    assert sorted([*train.tolist(), *held.tolist()]) == np.flatnonzero(column >= 0).tolist()
    assert (np.diff(train) > 0).all()
    assert (np.diff(held) > 0).all()
    assert set(column[train].tolist()) == set(column[column >= 0].tolist())
