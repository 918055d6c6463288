"""Long-tailed cuts and holdouts, against the published lists and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ConfigError, LabelError
from ltstore.sources import CifarSource, exp_cut, step_cut, stratified_holdout


@pytest.mark.slow
def test_the_published_cifar100_lists_come_out_in_order(real_data: Path) -> None:
    labels = CifarSource(real_data / "cifar100" / "cifar-100-python.tar.xz").labels
    for imbalance, n in ((10, 19_573), (50, 12_608), (100, 10_847)):
        published = np.load(real_data / "longtail" / f"cifar100_lt_if{imbalance}_seed0_ldam_order.npy")
        found = exp_cut(labels, imbalance)
        assert len(found) == n
        assert found.dtype == np.int64
        assert np.array_equal(found, published)


def test_exponential_cut_of_a_small_set_by_hand() -> None:
    labels = np.repeat([0, 1, 2], 10)
    random = np.random.RandomState(5)
    expected = []
    for class_id, size in enumerate((10, 5, 2)):  # 10, 10 / 2, 10 / 4 = 2.5
        members = np.flatnonzero(labels == class_id)
        random.shuffle(members)
        expected += members[:size].tolist()
    assert exp_cut(labels, 4, seed=5).tolist() == expected


def test_step_cut_sizes() -> None:
    labels = np.tile(np.arange(5), 12)
    assert np.bincount(labels[step_cut(labels, 5)]).tolist() == [12, 12, 2, 2, 2]
    assert np.bincount(labels[step_cut(labels, 1)]).tolist() == [12] * 5
    assert len(step_cut(np.zeros(7, int), 100)) == 7


def test_small_classes_give_all_they_have_and_one_class_does_not_divide_by_zero() -> None:
    labels = np.array([0] * 2 + [1] * 20 + [2] * 8)
    assert np.bincount(labels[exp_cut(labels, 2)]).tolist() == [2, 7, 5]
    assert len(exp_cut(np.zeros(9, int), 100)) == 9
    assert len(exp_cut(np.array([0, 2, 2]), 1, n_classes=4)) == 0
    assert exp_cut(np.array([0, 1, 1, 1]), 1, n_classes=2).size == 3


def test_unlabelled_rows_are_never_taken_nor_counted() -> None:
    labels = np.array([-1] * 100 + [0] * 4 + [1] * 4)
    assert sorted(exp_cut(labels, 2)[:4].tolist()) == [100, 101, 102, 103]
    assert np.bincount(labels[exp_cut(labels, 2)]).tolist() == [4, 2]
    train, held = stratified_holdout(labels, 0.5)
    assert min(train.min(), held.min()) >= 100
    assert exp_cut(np.full(3, -1), 10).size == 0


@pytest.mark.parametrize("cut", [exp_cut, step_cut])
@pytest.mark.parametrize("imbalance", [0, -3, 0.5, float("nan"), float("inf")])
def test_an_imbalance_below_one_is_refused(cut: object, imbalance: float) -> None:
    with pytest.raises(ConfigError, match="a number >= 1, found"):
        cut([0, 1], imbalance)  # type: ignore[operator]


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(LabelError, match=r"0..1"):
        exp_cut([0, 2], 10, n_classes=2)
    with pytest.raises(LabelError, match="integers"):
        exp_cut([0.5], 10)
    with pytest.raises(LabelError):
        exp_cut([-2, 0], 10)
    with pytest.raises(ConfigError, match="n_classes"):
        exp_cut([-1], 10, n_classes=0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_holdout_fraction_outside_its_interval_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        stratified_holdout([0, 1], fraction)


def test_holdout_sizes_and_seed() -> None:
    labels = np.repeat([0, 1, 2, 3], [10, 5, 2, 1])
    _, held = stratified_holdout(labels, 0.2)
    assert np.bincount(labels[held], minlength=4).tolist() == [2, 1, 0, 0]
    assert np.bincount(labels[stratified_holdout(labels, 0.9)[0]]).tolist() == [1, 1, 1, 1]
    assert stratified_holdout(labels, 0.2)[1].tolist() == held.tolist()
    assert any(stratified_holdout(labels, 0.2, seed=s)[1].tolist() != held.tolist() for s in (1, 2, 3))


@pytest.mark.parametrize("seed", [-1, 2**32, 5_000_000_000])
def test_a_seed_that_the_legacy_generator_does_not_take_is_refused(seed: int) -> None:
    for cut in (exp_cut, step_cut):
        with pytest.raises(ConfigError, match=f"must lie in 0..4294967295, found {seed}"):
            cut(np.arange(4), 2, seed=seed)
    if seed < 0:
        with pytest.raises(ConfigError, match="seed must not be negative, found -1"):
            stratified_holdout(np.arange(4), 0.5, seed=seed)
    assert len(exp_cut(np.arange(4), 1, seed=2**32 - 1)) == 4
