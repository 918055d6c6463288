"""Random order: each row once, parts stay together, keys lead back, and the same seed gives the same for ever."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltstore.errors import ConfigError
from ltstore.sources import ParquetSource, SelectedSource, ShuffledSource, TarSource, ordered, relabelled
from ltstore.sources.base import Parts
from ltstore.sources.shuffled import shuffled_positions
from support.images import array_source, encoded, picture
from support.shards import sample, write_images, write_shard


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=12), st.integers(1, 5), st.integers(0, 2**40))
def test_every_row_comes_once_and_the_parts_of_a_window_together(
    n_rows: list[int], at_once: int, seed: int
) -> None:
    starts = np.cumsum([0, *n_rows])
    found = shuffled_positions(Parts(starts, at_once), seed)
    assert sorted(found.tolist()) == list(range(sum(n_rows)))
    part_of = (starts[1:].searchsorted(found, side="right")).tolist()
    at = 0
    while at < len(part_of):
        window = list(dict.fromkeys(part_of[at:]))[:at_once]
        size = sum(n_rows[part] for part in window)
        assert set(part_of[at : at + size]) == set(window)
        at += size


def test_the_order_of_a_seed_is_for_ever() -> None:
    assert shuffled_positions(Parts(np.array([0, 10])), 0).tolist() == [6, 9, 8, 0, 3, 4, 5, 1, 2, 7]
    assert shuffled_positions(Parts(np.array([0, 3, 6, 9]), 2), 5).tolist() == [2, 3, 1, 4, 0, 5, 7, 6, 8]


def test_all_orders_are_as_likely() -> None:
    orders = [tuple(shuffled_positions(Parts(np.array([0, 4])), seed).tolist()) for seed in range(4800)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 50  # chi-squared of 23 degrees: 50 is beyond 0.999


def test_eight_bytes_a_row_are_held() -> None:
    n_rows = 2_000_000
    tracemalloc.start()
    shuffled_positions(Parts(np.array([0, n_rows])), 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 8 * n_rows <= peak < 8.5 * n_rows


def test_rows_keep_their_keys_labels_and_images() -> None:
    source = array_source(50)
    found = ShuffledSource(source, 2)
    back = [int(found.key(i).split("/")[1]) for i in range(50)]
    assert sorted(back) == list(range(50))
    assert back != list(range(50))
    np.testing.assert_array_equal(found.labels, source.labels[back])
    for i in (0, 17, 49):
        np.testing.assert_array_equal(np.asarray(found.read(i)), np.asarray(source.read(back[i])))


def test_seeds_differ_and_the_digest_tells() -> None:
    source = array_source(50)
    digests = {ordered(source, order, seed).digest for order in ("source", "shuffled") for seed in (0, 1)}
    assert len(digests) == 3
    assert ShuffledSource(source, 1).digest == ordered(source, "shuffled", 1).digest


def test_rows_of_tars_are_mixed_in_windows(tmp_path: Path) -> None:
    for tar in range(20):
        members = [pair for i in range(4) for pair in sample(f"{i}", 0, i)]
        write_shard(tmp_path / f"{tar:02d}.tar", members)
    source = TarSource(tmp_path)
    assert source.parts == (pytest.approx(np.arange(0, 81, 4)), 8)
    tars = [ShuffledSource(source, 1).key(i).split("/")[0] for i in range(80)]
    windows = [set(tars[:32]), set(tars[32:64]), set(tars[64:])]
    assert [len(window) for window in windows] == [8, 8, 4]
    assert not windows[0] & windows[1]
    assert len(set(tars[:4])) > 1
    renamed = relabelled(source, ["0", "other"])
    assert renamed.parts == (pytest.approx(source.parts.starts), 8)  # type: ignore[attr-defined]


def test_a_cut_of_a_source_in_its_order_keeps_the_parts(tmp_path: Path) -> None:
    images = [encoded(picture(i)) for i in range(7)]
    write_images(tmp_path / "p" / "a.parquet", images, label=[0] * 7, row_group_size=3)
    source = ParquetSource(tmp_path / "p")
    assert source.parts.starts.tolist() == [0, 3, 6, 7]
    assert source.parts.at_once > 1
    assert SelectedSource(source, [0, 2, 3, 6]).parts.starts.tolist() == [0, 2, 3, 4]
    assert SelectedSource(source, [6, 2, 3]).parts.starts.tolist() == [0, 3]


def test_what_is_no_order_is_refused() -> None:
    with pytest.raises(ConfigError, match="order must be source or shuffled, found 'sorted'"):
        ordered(array_source(3), "sorted", 0)
    with pytest.raises(ConfigError, match="seed must be at least 0, found -1"):
        ordered(array_source(3), "shuffled", -1)
