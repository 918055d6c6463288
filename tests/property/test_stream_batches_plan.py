"""However an epoch is divided, every row comes exactly once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ltstore.errors import ConfigError
from ltstore.stream import BatchPlan


@st.composite
def plans(draw: st.DrawFn) -> BatchPlan:
    def number(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    return BatchPlan(
        n_samples=number(0, 400),
        batch_size=number(1, 50),
        shuffle=draw(st.booleans()),
        seed=number(0, 3),
        epoch=number(0, 3),
        segment_rows=number(1, 60),
        buffer_rows=number(0, 200),
        world_size=number(1, 5),
        n_workers=number(1, 4),
    )


def everyone(plan: BatchPlan) -> list[list[BatchPlan]]:
    return [
        [replace(plan, rank=rank, worker=worker) for worker in range(plan.n_workers)]
        for rank in range(plan.world_size)
    ]


@given(plans())
def test_every_row_once_over_ranks_and_workers(plan: BatchPlan) -> None:
    batches = [batch for rank in everyone(plan) for worker in rank for batch in worker.batches()]
    given_out = np.concatenate([np.empty(0, np.int64), *batches])
    assert np.array_equal(np.sort(given_out), np.arange(plan.n_samples))
    assert len(batches) == plan.n_all_batches == -(-plan.n_samples // plan.batch_size)
    assert sum(len(batch) != plan.batch_size for batch in batches) <= 1


@given(plans())
def test_counts_say_what_comes(plan: BatchPlan) -> None:
    counts = []
    for rank in everyone(plan):
        made = [len(list(worker.batches())) for worker in rank]
        assert made == [worker.n_batches for worker in rank]
        assert sum(made) == rank[0].n_rank_batches
        counts.append(sum(made))
    assert max(counts) - min(counts) <= 1


@given(plans(), st.booleans(), st.booleans())
def test_dropping_says_how_many(plan: BatchPlan, drop_last: bool, equal_batches: bool) -> None:
    try:
        plan = replace(plan, drop_last=drop_last, equal_batches=equal_batches)
    except ConfigError:
        assert plan.n_samples < plan.batch_size * plan.world_size
        return
    ranks = everyone(plan)
    batches = [batch for rank in ranks for worker in rank for batch in worker.batches()]
    given_out = np.concatenate([np.empty(0, np.int64), *batches])
    assert len(np.unique(given_out)) == len(given_out) == plan.n_samples - plan.n_dropped
    if drop_last:
        assert all(len(batch) == plan.batch_size for batch in batches)
        assert equal_batches or plan.n_dropped == plan.n_samples % plan.batch_size
    if equal_batches:
        assert len({rank[0].n_rank_batches for rank in ranks}) == 1
        assert plan.n_dropped < plan.batch_size * plan.world_size


@given(plans(), st.data())
def test_starting_later_is_skipping(plan: BatchPlan, data: st.DataObject) -> None:
    whole = list(plan.batches())
    start = data.draw(st.integers(0, len(whole)))
    rest = list(plan.batches(start))
    assert len(rest) == len(whole) - start
    assert all(np.array_equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


@given(plans())
def test_a_rank_gets_the_same_batches_whatever_its_workers(plan: BatchPlan) -> None:
    alone = {tuple(batch) for batch in replace(plan, n_workers=1).batches()}
    shared = {tuple(batch) for worker in everyone(plan)[0] for batch in worker.batches()}
    assert alone == shared


@given(plans())
def test_unshuffled_batches_are_consecutive_and_dealt_in_turn(plan: BatchPlan) -> None:
    workers = [list(worker.batches()) for worker in everyone(replace(plan, shuffle=False, world_size=1))[0]]
    turns = max(map(len, workers))
    dealt = [worker[turn] for turn in range(turns) for worker in workers if turn < len(worker)]
    assert np.array_equal(np.concatenate([np.empty(0, np.int64), *dealt]), np.arange(plan.n_samples))


@given(plans())
def test_runs_stay_within_segments(plan: BatchPlan) -> None:
    for buffer in replace(plan, shuffle=True).buffers():
        for start, stop in buffer.runs:
            assert 0 < stop - start <= plan.segment_rows
            assert start // plan.segment_rows == (stop - 1) // plan.segment_rows
