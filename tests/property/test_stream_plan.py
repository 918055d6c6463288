"""A plan covers every row exactly once, whatever the block size, and blocks are as full as they can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltstore.errors import ConfigError
from ltstore.stream import plan_real, plan_synthetic

block_sizes = st.integers(1, 40)


@given(n=st.integers(0, 200), block_rows=block_sizes)
def test_real_rows_are_covered_once_in_order(n, block_rows):
    blocks = plan_real(n, block_rows)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(n))
    assert all(block.stop - block.start == block_rows for block in blocks[:-1])


@given(targets=st.lists(st.integers(0, 60), max_size=12), block_rows=block_sizes)
def test_synthetic_rows_are_covered_once_in_order(targets, block_rows):
    blocks = plan_synthetic(np.array(targets, np.int64), block_rows)
    found = [
        (piece.class_id, row)
        for block in blocks
        for piece in block.pieces
        for row in range(piece.start, piece.stop)
    ]
    assert found == [(c, row) for c, target in enumerate(targets) for row in range(target)]
    assert all(block.n_rows == block_rows for block in blocks[:-1])
    assert all(0 < block.n_rows <= block_rows for block in blocks)


@pytest.mark.parametrize("block_rows", [0, -1])
def test_a_block_holds_at_least_one_row(block_rows):
    with pytest.raises(ConfigError, match="block_rows"):
        plan_real(3, block_rows)
    with pytest.raises(ConfigError, match="block_rows"):
        plan_synthetic(np.array([1]), block_rows)
