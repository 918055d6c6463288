from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.rows import ArrayRows
from ltstore.stream import TrainingStream
from support.made_sampler import MadeSampler

N, D, C = 57, 5, 4
TARGETS = np.array([0, 3, 11, 40])


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, N)
    labels[[3, 4, 20]] = -1
    return ArrayRows(rng.normal(size=(N, D)), labels, class_names=list("abcd"))


def joined(stream):
    blocks = [(X.copy(), labels.copy()) for X, labels, _ in stream]
    return np.concatenate([X for X, _ in blocks]), np.concatenate([labels for _, labels in blocks])


def mixed(rows, **options):
    return TrainingStream(rows, sampler=MadeSampler(np.eye(C, D)), targets=TARGETS, seed=7, **options)


def test_real_rows_come_first_in_order_without_the_unlabelled(rows):
    X, labels = joined(mixed(rows, block_rows=10))
    known = np.flatnonzero(rows.labels >= 0)
    assert np.array_equal(X[: len(known)], rows.take(known))
    assert np.array_equal(labels[: len(known)], rows.labels[known])
    assert np.array_equal(np.bincount(labels[len(known) :], minlength=C), TARGETS)


def test_counts_and_shares(rows):
    stream = mixed(rows)
    _, labels = joined(stream)
    assert (stream.n_real, stream.n_unlabelled, stream.n_synthetic) == (54, 3, 54)
    assert stream.n_samples == len(labels)
    assert (stream.n_classes, stream.n_features, stream.class_names) == (C, D, tuple("abcd"))
    assert np.allclose(stream.class_shares, np.bincount(labels, minlength=C) / len(labels), rtol=0, atol=1e-15)
    assert np.array_equal(stream.real_counts, np.bincount(rows.labels[rows.labels >= 0], minlength=C))


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("block_rows", [1, 7, 54, 1000])
def test_every_pass_is_the_same_whatever_block_or_cache(rows, cache_bytes, block_rows):
    stream = mixed(rows, cache_bytes=cache_bytes, block_rows=block_rows)
    expected_X, expected_labels = joined(mixed(rows))
    for _ in range(2):
        X, labels = joined(stream)
        assert np.array_equal(X, expected_X)
        assert np.array_equal(labels, expected_labels)


def test_two_streams_of_one_set_of_rows_may_be_walked_at_once(rows):
    pairs = zip(mixed(rows, block_rows=9), mixed(rows, block_rows=9), strict=True)
    assert all(np.array_equal(a[0], b[0]) for a, b in pairs)


def test_what_fits_is_drawn_once_and_what_does_not_is_drawn_again(rows):
    for cache_bytes, factor in [(1 << 20, 1), (0, 3)]:
        sampler = MadeSampler(np.eye(C, D))
        stream = TrainingStream(rows, sampler=sampler, targets=TARGETS, cache_bytes=cache_bytes)
        joined(stream)
        once = sampler.calls
        joined(stream)
        joined(stream)
        assert sampler.calls == factor * once


def test_a_pass_broken_off_leaves_the_next_whole(rows):
    stream = mixed(rows, block_rows=10)
    next(iter(stream))
    assert len(joined(stream)[1]) == stream.n_samples


def test_seed_and_epoch_decide_the_synthetic_rows(rows):
    def synthetic(seed, epoch):
        stream = TrainingStream(
            rows, sampler=MadeSampler(np.eye(C, D)), targets=TARGETS, seed=seed, epoch=epoch
        )
        return joined(stream)[0][stream.n_real :]

    assert np.array_equal(synthetic(1, 0), synthetic(1, 0))
    assert not np.array_equal(synthetic(1, 0), synthetic(2, 0))
    assert not np.array_equal(synthetic(1, 0), synthetic(1, 1))


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_blocks_cannot_be_written_to(rows, cache_bytes):
    for X, labels, weights in mixed(rows, cache_bytes=cache_bytes, block_rows=10):
        assert not X.flags.writeable
        assert not labels.flags.writeable
        assert weights is None


def test_a_block_of_unlabelled_rows_is_passed_over(rows):
    labels = np.r_[np.full(10, -1), np.arange(10) % 2]
    stream = TrainingStream(ArrayRows(np.ones((20, 2)), labels), block_rows=5)
    assert [len(labels) for _, labels, _ in stream] == [5, 5]


def test_no_labelled_row_is_an_error():
    with pytest.raises(DataError, match="labelled rows"):
        TrainingStream(ArrayRows(np.ones((3, 2)), class_names=["a"]))


@pytest.mark.parametrize(
    "targets", [None, np.array([1, 2]), np.array([1, 2, 3, -1]), np.array([1.0, 2.0, 3.0, 4.0])]
)
def test_targets_must_fit(rows, targets):
    with pytest.raises(ConfigError, match="targets"):
        TrainingStream(rows, sampler=MadeSampler(np.eye(C, D)), targets=targets)


def test_targets_without_a_sampler_are_refused(rows):
    with pytest.raises(ConfigError, match="no sampler"):
        TrainingStream(rows, targets=TARGETS)


def test_a_sampler_of_other_rows_is_refused(rows):
    stream = TrainingStream(rows, sampler=MadeSampler(np.eye(C, D + 1)), targets=TARGETS)
    with pytest.raises(DataError, match="fitted on other rows"):
        joined(stream)
