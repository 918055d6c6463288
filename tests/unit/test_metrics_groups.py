"""Groups of classes by training size."""

from __future__ import annotations

import numpy as np

from ltstore.metrics import count_groups


def test_boundaries_belong_to_medium_and_empty_classes_to_few() -> None:
    groups = count_groups([0, 1, 19, 20, 21, 100, 101, 5000])
    assert list(groups) == ["many", "medium", "few"]
    assert groups["few"].tolist() == [True] * 3 + [False] * 5
    assert groups["medium"].tolist() == [False] * 3 + [True] * 3 + [False] * 2
    assert groups["many"].tolist() == [False] * 6 + [True] * 2


def test_cifar100_lt_has_the_group_sizes_of_the_literature() -> None:
    counts = np.array([int(500 * 0.01 ** (i / 99)) for i in range(100)])
    assert [int(mask.sum()) for mask in count_groups(counts).values()] == [35, 35, 30]


def test_no_classes_give_empty_masks() -> None:
    assert all(mask.shape == (0,) and mask.dtype == bool for mask in count_groups([]).values())
