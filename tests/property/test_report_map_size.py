"""However rows are spread over classes, the map keeps to its size and shows every class."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ltstore.report import row_map


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(1, 80), st.integers(0, 3))
def test_limit_and_coverage(sizes: list[int], max_points: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    X = np.random.default_rng(0).normal(size=(len(labels), 3)).astype(np.float32)
    found = row_map(X, labels, None, None, np.arange(len(sizes)), max_points=max_points, seed=seed)
    assert len(found.points) <= max(max_points, len(sizes))
    assert set(found.class_ids) == set(range(len(sizes)))
    shown = np.bincount(found.class_ids)
    assert (shown <= sizes).all()
    if sum(sizes) <= max_points:
        assert shown.tolist() == sizes
