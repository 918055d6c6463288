"""Queries as records, and restrictions by name."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import DataError, LabelError
from ltstore.neighbors import ExactIndex, query_neighbors, resolve_among
from ltstore.rows import ArrayRows

NAMES = ("cat", "dog", "few", "hot, dog")
COUNTS = np.array([200, 50, 3, 2])


def test_records() -> None:
    rows = ArrayRows(np.eye(4)[[0, 1, 2, 0]], [0, 1, 2, -1], class_names=NAMES, row_ids=[3, 5, 7, 9])
    found = query_neighbors(
        ExactIndex(rows),
        np.array([[1.0, 0.5, 0.2, 0]], np.float32),
        4,
        labels=rows.labels,
        class_names=NAMES,
        counts=COUNTS,
    )
    assert [n.row_id for n in found] == [3, 9, 5, 7]
    assert [n.rank for n in found] == [1, 2, 3, 4]
    assert [n.class_name for n in found] == ["cat", None, "dog", "few"]
    assert [n.group for n in found] == ["many", None, "medium", "few"]
    assert [n.class_count for n in found] == [200, 0, 50, 3]
    assert found[0].similarity == pytest.approx(1 / np.sqrt(1.29))


def test_among_classes_gives_fewer() -> None:
    rows = ArrayRows(np.eye(4), [0, 1, 2, 3], class_names=NAMES)
    found = query_neighbors(
        ExactIndex(rows),
        np.eye(4, dtype=np.float32),
        3,
        labels=rows.labels,
        class_names=NAMES,
        counts=COUNTS,
        among=resolve_among("tail", COUNTS, NAMES),
    )
    assert {n.class_id for n in found} == {1, 2, 3}
    assert [n.query for n in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    "among, expected",
    [
        ("many", [0]),
        ("medium", [1]),
        ("few", [2]),
        ("tail", [1, 2, 3]),
        ("dog, cat", [0, 1]),
        ("hot, dog", [3]),
        ("dog,dog", [1]),
    ],
)
def test_resolve(among: str, expected: list[int]) -> None:
    np.testing.assert_array_equal(resolve_among(among, COUNTS, NAMES), expected)


def test_unknown_names() -> None:
    with pytest.raises(LabelError, match="did you mean 'cat'"):
        resolve_among("dog,catt", COUNTS, NAMES)
    with pytest.raises(LabelError, match="many, medium, few, tail"):
        resolve_among("", COUNTS, NAMES)
    rows = ArrayRows(np.eye(4), [0, 1, 2, 3], class_names=NAMES)
    with pytest.raises(DataError, match="4 indexed rows"):
        query_neighbors(
            ExactIndex(rows),
            np.eye(4, dtype=np.float32),
            1,
            labels=np.array([0]),
            class_names=NAMES,
            counts=COUNTS,
        )
