"""Parts of a stream: together they are the whole, row by row, and each says of a pass what the whole does."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltstore.errors import ConfigError
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import balance_targets
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from ltstore.stream.plan import plan_part, plan_synthetic
from support.samplers import AFFINE, ready

COUNTS = (40, 22, 9, 3, 1)
C, D = len(COUNTS), 6


def made_rows() -> ArrayRows:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.concatenate([np.repeat(np.arange(C), COUNTS), np.full(7, -1)]))
    return ArrayRows(rng.normal(size=(len(labels), D)), labels, class_names="abcde", normalize=True)


def stream(name: str = "kde", **options: object) -> TrainingStream:
    rows = made_rows()
    moments = class_moments(rows, rank=3)
    sampler = ready(name, rows).fit(rows, moments, class_donors(moments.means, moments.counts))
    weights = np.random.default_rng(1).uniform(0.5, 2, rows.n_samples).astype(np.float32)
    targets = balance_targets(moments.counts)
    return TrainingStream(rows, sampler=sampler, targets=targets, weights=weights, block_rows=16, **options)


def sorted_rows(streams: list[TrainingStream]) -> np.ndarray:
    """All rows of the streams with label and weight, in an order of their own."""
    found = [
        np.column_stack([X, labels, np.ones(len(X)) if weights is None else weights])
        for one in streams
        for X, labels, weights in one
    ]
    table = np.concatenate(found)
    return table[np.lexsort(table.T)]


@pytest.mark.parametrize("n_parts", [1, 2, 3, 5, 200])
@pytest.mark.parametrize("cache_bytes", [1 << 30, 0])
def test_parts_are_the_whole(n_parts: int, cache_bytes: int) -> None:
    whole = stream(cache_bytes=cache_bytes)
    parts = [whole.part(number, n_parts) for number in range(n_parts)]
    np.testing.assert_array_equal(sorted_rows(parts), sorted_rows([whole]))
    np.testing.assert_array_equal(sorted_rows(parts), sorted_rows([whole]))  # from the cache
    sizes = [sum(len(X) for X, _, _ in one.real_blocks()) for one in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == [one.n_given(real_only=True) for one in parts]
    assert [sum(len(X) for X, _, _ in one) for one in parts] == [one.n_given() for one in parts]
    assert {one.n_samples for one in parts} == {whole.n_samples}
    for one in parts:
        np.testing.assert_array_equal(one.class_shares, whole.class_shares)


def test_a_part_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="part 3 of 3"):
        stream().part(3, 3)


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("n_parts", [2, 5])
def test_sums_of_parts_are_the_rows_of_the_whole(name: str, n_parts: int) -> None:
    whole = stream(name)
    X = whole.rows.read(0, whole.rows.n_samples)
    made = [X for X, _, _ in stream(name, combine=False)]
    n_real = sum(len(x) for x, _, _ in whole.real_blocks())
    expected = np.concatenate(made)[n_real:]
    found = []
    for number in range(n_parts):
        part = whole.part(number, n_parts)
        sums = part._sums
        atoms = np.concatenate([X[sums.positions], sums.vectors])
        if part.combined(C) is not None:
            own = np.concatenate([x for x, _, _ in part.real_blocks()])
            np.testing.assert_array_equal(own, X[sums.positions])
        found.append(np.einsum("nt,ntd->nd", sums.factors, atoms[sums.indices]))
    table = np.concatenate(found)
    assert len(table) == whole.n_synthetic
    table, expected = (x[np.argsort(x @ np.arange(1.0, D + 1))] for x in (table, expected))
    np.testing.assert_allclose(table, expected, atol=2e-6)


def test_a_part_that_would_need_more_rows_of_others_than_it_has_synthetic_ones_makes_them() -> None:
    rows = made_rows()
    moments = class_moments(rows, rank=3)
    sampler = ready("smote", rows).fit(rows, moments, class_donors(moments.means, moments.counts))
    few = TrainingStream(rows, sampler=sampler, targets=np.array([0, 2, 0, 0, 0]))
    whys = [few.part(number, 40).why_not_combined(C) for number in range(40)]
    assert any("real rows of other parts" in why for why in whys)
    np.testing.assert_array_equal(
        sorted_rows([few.part(number, 40) for number in range(40)]), sorted_rows([few])
    )
    for number, why in enumerate(whys):
        assert (few.part(number, 40).combined(C) is None) == (
            why != "" or not few.part(number, 40)._part.n_synthetic
        )


def test_parts_in_one_memory_keep_their_share_of_it() -> None:
    whole = stream(cache_bytes=4 * D * 75)  # all real rows, not the synthetic ones
    assert whole.real_cached
    assert [whole.part(k, 2).real_cached for k in range(2)] == [True, True]
    assert [whole.part(k, 2, sharing=2).real_cached for k in range(2)] == [True, False]


def test_a_stream_travels_without_what_it_keeps() -> None:
    whole = stream("smote")
    list(whole)
    whole.combined(C)
    sent = pickle.dumps(whole)
    assert len(sent) == len(pickle.dumps(whole.part(0, 1)))
    other = pickle.loads(sent)  # noqa: S301
    np.testing.assert_array_equal(sorted_rows([other]), sorted_rows([whole]))
    assert other.combined(C) is not None  # the sampler still knows its rows
    assert other.identity() == whole.identity()


@given(
    st.lists(st.integers(-1, 3), min_size=1, max_size=40),
    st.lists(st.integers(0, 30), min_size=4, max_size=4),
    st.integers(1, 9),
    st.integers(1, 12),
)
def test_every_row_is_in_exactly_one_part(labels, targets, n_parts, block_rows) -> None:
    labels, targets = np.array(labels), np.array(targets)
    parts = [plan_part(labels, targets, number, n_parts) for number in range(n_parts)]
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, len(labels))
    np.testing.assert_array_equal(sum(part.last - part.first for part in parts), targets)
    for before, after in pairwise(parts):
        np.testing.assert_array_equal(before.last[after.first > 0], after.first[after.first > 0])
    sizes = [part.n_synthetic for part in parts]
    assert max(sizes) - min(sizes) <= 1
    blocks = [b for part in parts for b in plan_synthetic(part.last, block_rows, first=part.first)]
    rows = [(p.class_id, i) for b in blocks for p in b.pieces for i in range(p.start, p.stop)]
    assert sorted(rows) == [(c, i) for c, n in enumerate(targets.tolist()) for i in range(n)]
