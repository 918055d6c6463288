"""A synthetic row depends on its number alone: not on slices, blocks, shards or a crash."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltstore.errors import ConfigError, PlanMismatchError
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import BaseSampler, materialize, read_synthetic, synthetic_blocks
from ltstore.stats import class_moments
from support.samplers import EVERY, ready

COUNTS = (12, 5, 1, 0)


def _fitted(name: str) -> BaseSampler:
    labels = np.repeat(np.arange(4), COUNTS)
    X = np.random.default_rng(0).normal(size=(len(labels), 5))
    rows = ArrayRows(X, labels, class_names="abcd", row_ids=np.arange(len(labels)) * 2 + 1, normalize=True)
    moments = class_moments(rows, rank=2)
    return ready(name, rows).fit(rows, moments, class_donors(moments.means, moments.counts))


FITTED = {name: _fitted(name) for name in EVERY}
NAMES = st.sampled_from(sorted(EVERY))


@given(NAMES, st.integers(0, 2), st.lists(st.integers(0, 40), min_size=2, max_size=5), st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_slices_agree_however_cut(name: str, c: int, cuts: list[int], seed: int) -> None:
    sampler, cuts = FITTED[name], sorted(cuts)
    whole = sampler.sample(c, cuts[0], cuts[-1], seed=seed)
    parts = [sampler.sample(c, a, b, seed=seed) for a, b in pairwise(cuts)]
    for field in ("X", "labels", "parent_ids", "donor_ids"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, field) for p in parts]), getattr(whole, field))


@given(NAMES, st.tuples(*[st.integers(0, 9)] * 3), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_blocks_cover_the_targets_in_order(name: str, targets: tuple[int, ...], block_rows: int) -> None:
    sampler = FITTED[name]
    wanted = np.array([*targets, 0])
    blocks = list(synthetic_blocks(sampler, wanted, seed=3, block_rows=block_rows))
    assert all(0 < len(b.X) <= block_rows for b in blocks)
    labels = np.concatenate([b.labels for b in blocks]) if blocks else np.zeros(0, np.int64)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(4), wanted))
    if blocks:
        whole = read_synthetic(sampler, wanted, 0, int(wanted.sum()), seed=3)
        np.testing.assert_array_equal(np.concatenate([b.X for b in blocks]), whole.X)


class _Plan:
    def __init__(self, n_rows: int, rows_per_shard: int) -> None:
        self.n_rows, self.rows_per_shard = n_rows, rows_per_shard

    def shard_range(self, shard: int) -> tuple[int, int]:
        start = shard * self.rows_per_shard
        return start, min(start + self.rows_per_shard, self.n_rows)


class _Writer:
    """Keeps shards in memory; dies before writing shard `dies_at`."""

    def __init__(self, n_rows: int, rows_per_shard: int, dies_at: int | None = None) -> None:
        self.plan = _Plan(n_rows, rows_per_shard)
        self.dies_at = dies_at
        self.shards: dict[int, dict[str, Any]] = {}
        self.finished = False

    @property
    def pending(self) -> Sequence[int]:
        n = -(-self.plan.n_rows // self.plan.rows_per_shard)
        return [i for i in range(n) if i not in self.shards]

    def write_shard(self, shard: int, *, timings: Any = None, **data: Any) -> None:
        if shard == self.dies_at:
            raise KeyboardInterrupt
        self.shards[shard] = data

    def finish(self) -> None:
        self.finished = True


TARGETS = np.array([0, 7, 11, 0])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dies_at", range(5))
def test_resumed_run_is_identical(name: str, dies_at: int) -> None:
    sampler = FITTED[name]
    whole, resumed = _Writer(18, 4), _Writer(18, 4, dies_at)
    seen: list[int] = []
    materialize(sampler, TARGETS, whole, seed=5, progress=lambda n, seconds: seen.append(n))
    with pytest.raises(KeyboardInterrupt):
        materialize(sampler, TARGETS, resumed, seed=5)
    assert not resumed.finished
    resumed.dies_at = None
    materialize(sampler, TARGETS, resumed, seed=5)
    assert whole.finished
    assert resumed.finished
    assert sum(seen) == 18
    assert whole.shards.keys() == resumed.shards.keys()
    for shard, data in whole.shards.items():
        for key, value in data.items():
            np.testing.assert_equal(resumed.shards[shard][key], value)


def test_what_is_written_names_its_origin() -> None:
    writer = _Writer(18, 10)
    materialize(FITTED["neighbor-gauss"], TARGETS, writer, seed=5, epoch=2)
    first, last = writer.shards[0], writer.shards[1]
    assert first["keys"][0] == "neighbor-gauss/5/2/1/0"
    assert last["keys"][-1] == "neighbor-gauss/5/2/2/10"
    assert first["extra"]["parent_ids"][9] == [35]  # the one row of class 2: position 17, id 35
    assert all(len(ids) >= 1 for ids in last["extra"]["donor_ids"])
    assert (first["status"] == 0).all()
    assert first["embeddings"].dtype == np.float32
    assert first["labels"].tolist() == [1] * 7 + [2] * 3


def test_wrong_totals_are_refused() -> None:
    sampler = FITTED["duplicate"]
    with pytest.raises(PlanMismatchError, match="planned for 17 rows, the targets add up to 18"):
        materialize(sampler, TARGETS, _Writer(17, 4), seed=0)
    with pytest.raises(ConfigError, match="outside the 18"):
        read_synthetic(sampler, TARGETS, 0, 19, seed=0)
    with pytest.raises(ConfigError, match="block_rows"):
        list(synthetic_blocks(sampler, TARGETS, seed=0, block_rows=0))
