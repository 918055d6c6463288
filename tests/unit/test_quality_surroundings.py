"""What rows lie among: own rows are left out by id, classes of few rows are judged by what there is."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.neighbors import ExactIndex, build_index, class_donors
from ltstore.quality import class_spacing, surroundings
from ltstore.rows import ArrayRows
from ltstore.types import Donors

# Class a around 0, b around 10, c a single row at 20.
POINTS = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [20.0]])
ROWS = ArrayRows(POINTS, [0, 0, 0, 1, 1, 2], class_names="abc", row_ids=[3, 5, 8, 9, 12, 40])


def look(X, class_ids, own_ids, k=2, rows=ROWS, index=None):
    own = np.asarray(own_ids, np.int64).reshape(len(X), -1)
    ids = np.asarray(class_ids, np.int64)
    return surroundings(
        index or ExactIndex(rows, "l2"), rows, np.asarray(X, np.float32).reshape(len(X), -1), ids, own, k
    )


def test_purity_and_intruders_by_hand():
    found = look([0.4, 6.0, 9.0], [0, 0, 0], [-1, -1, -1])
    assert found.purity.tolist() == [1, 0.5, 0]  # 6.0 lies 4 from both 2 and 10: one of each
    assert found.intruder[[0, 2]].tolist() == [-1, 1]
    np.testing.assert_allclose(found.nearest, [0.4, 4, 1], atol=1e-6)


def test_parents_are_left_out_by_id_and_an_equal_row_stays():
    twins = ArrayRows([[0.0], [0.0], [5.0]], [0, 0, 1], class_names="ab", row_ids=[2, 7, 9])
    found = look([0.0], [0], [7], rows=twins)
    assert found.purity.tolist() == [1]
    assert found.intruder.tolist() == [-1]
    assert found.nearest_other.tolist() == [0]
    both = look([0.0], [0], [[2, 7]], rows=twins)
    assert np.isnan(both.purity).all()
    assert both.intruder.tolist() == [-2]  # nothing of its class is left: that is no intrusion
    assert both.nearest.tolist() == [0]
    assert both.nearest_other.tolist() == [5]


def test_a_class_of_two_rows_is_judged_by_the_one_that_is_left():
    found = look([10.1], [1], [9], k=5)
    assert found.purity.tolist() == [1]
    assert look([10.1], [1], [-1], k=5).purity.tolist() == [1]


def test_the_only_row_of_a_class():
    found = look([20.5, 20.5], [2, 2], [40, -1])
    assert np.isnan(found.purity[0])
    assert found.purity[1] == 1
    assert found.intruder.tolist() == [-2, -1]


def test_a_parent_named_twice_or_of_another_class_is_not_counted_as_lost():
    """Two parents that are one row leave the class n - 1 rows; a donor's row leaves it all of them."""
    assert look([10.1], [1], [[9, 9]], k=5).purity.tolist() == [1]
    assert look([1.0], [0], [[9, -1]], k=5).purity.tolist() == [1]


def test_unlabelled_rows_are_not_seen():
    rows = ArrayRows([[0.0], [0.1], [3.0]], [0, -1, 1], class_names="ab")
    found = look([0.1], [0], [-1], rows=rows)
    assert found.nearest == pytest.approx([0.1])
    assert found.purity.tolist() == [1]


def test_faiss_finds_the_same():
    rng = np.random.default_rng(0)
    rows = ArrayRows(rng.normal(size=(90, 6)), np.repeat([0, 1, 2], [60, 25, 5]), normalize=True)
    X = rng.normal(size=(40, 6)).astype(np.float32)
    ids, own = rng.integers(0, 3, 40), rng.integers(-1, 90, (40, 2))
    exact = look(X, ids, own, k=4, rows=rows)
    other = look(X, ids, own, k=4, rows=rows, index=build_index(rows, metric="l2", device="cpu"))
    for name in ("purity", "intruder", "nearest", "nearest_other"):
        np.testing.assert_allclose(getattr(other, name), getattr(exact, name))


def test_another_metric_is_refused():
    with pytest.raises(DataError, match="'l2', found 'cosine'"):
        look([0.0], [0], [-1], index=ExactIndex(ROWS))


def test_spacing_is_the_median_distance_to_the_nearest_of_the_class():
    spacing = class_spacing(ROWS, np.array([0, 1]))
    assert spacing[:2].tolist() == [1, 1]
    assert np.isnan(spacing[2])


def test_a_class_of_one_row_borrows_its_spacing():
    wide = ArrayRows(np.array([[0.0], [1], [10], [14], [50]]), [0, 0, 1, 1, 2], class_names="abcd")
    wanted = np.array([0, 1, 2])
    assert class_spacing(wide, wanted)[2] == 2.5  # the median of 1 and 4
    donors = Donors(
        class_ids=np.array([[-1, -1], [-1, -1], [0, 1], [-1, -1]]),
        weights=np.array([[0, 0], [0, 0], [0.25, 0.75], [0, 0]]),
        similarity=np.zeros((4, 2)),
        head=np.array([True, True, False, False]),
    )
    assert class_spacing(wide, wanted, donors)[2] == 0.25 * 1 + 0.75 * 4
    assert class_spacing(wide, np.array([2]), donors)[2] == 0.25 * 1 + 0.75 * 4
    assert np.isnan(class_spacing(wide, wanted)[3])


def test_where_every_class_has_one_row_there_is_no_spacing():
    rows = ArrayRows(np.eye(3), [0, 1, 2])
    donors = class_donors(np.eye(3), np.ones(3, np.int64))
    assert np.isnan(class_spacing(rows, np.arange(3), donors)).all()
