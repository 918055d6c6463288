"""A plan covers each row exactly once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltstore.errors import ConfigError
from ltstore.store import ShardPlan, plan_shards

PLANS = st.builds(
    lambda n, chunk, chunks: ShardPlan(n_rows=n, rows_per_shard=chunk * chunks, chunk_rows=chunk),
    st.integers(0, 5000),
    st.integers(1, 40),
    st.integers(1, 40),
)


@given(PLANS)
def test_every_row_lies_in_exactly_one_shard(plan: ShardPlan) -> None:
    rows = [row for shard in range(plan.n_shards) for row in range(*plan.shard_range(shard))]
    assert rows == list(range(plan.n_rows))
    for shard in range(plan.n_shards):
        start, stop = plan.shard_range(shard)
        assert 0 < stop - start <= plan.rows_per_shard
        assert (
            (plan.n_chunks(shard) - 1) * plan.chunk_rows
            < stop - start
            <= plan.n_chunks(shard) * plan.chunk_rows
        )


@given(st.integers(0, 1 << 36))
def test_auto_is_a_power_of_two_within_its_bounds(n_rows: int) -> None:
    plan = plan_shards(n_rows)
    rows = plan.rows_per_shard
    assert rows & (rows - 1) == 0
    assert 1024 <= rows <= 65536
    assert plan.chunk_rows == 1024
    if 1024 < rows < 65536:
        assert 8 < plan.n_shards <= 16


@pytest.mark.parametrize(
    "n_features, expected", [(1024, 65536), (1025, 32768), (4096, 16384), (1 << 20, 64), (1 << 30, 1)]
)
def test_shards_of_wide_rows_are_shorter(n_features: int, expected: int) -> None:
    plan = plan_shards(10_000_000 if n_features < 1 << 20 else 50_000, n_features=n_features)
    assert (plan.rows_per_shard, plan.chunk_rows) == (expected, min(expected, 1024))


@pytest.mark.parametrize(
    "n_rows, rows_per_shard, message",
    [
        (-1, "auto", "n_rows"),
        (10, 0, "rows_per_shard"),
        (10, 1500, "multiple of chunk_rows"),
        (10, "many", "'auto'"),
        (10, True, "rows_per_shard"),
        (10.5, 8, "n_rows"),
    ],
)
def test_nonsense_is_named(n_rows: int, rows_per_shard: int | str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_shards(n_rows, rows_per_shard)


def test_a_shard_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        plan_shards(10, 5).shard_range(2)
