"""Bootstrap intervals: against theory, against a naive loop, and that they are seeded."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.metrics import (
    bootstrap_interval,
    evaluate_predictions,
    expected_calibration_error,
    paired_bootstrap,
)


def test_interval_of_a_share_is_the_binomial_one() -> None:
    values = np.arange(10_000) < 3_000
    low, high = bootstrap_interval(values, n_bootstrap=4000)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 10_000)
    assert low == pytest.approx(0.3 - half, abs=6e-4)
    assert high == pytest.approx(0.3 + half, abs=6e-4)


def test_interval_of_real_values_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 2_000)  # all distinct: rows are drawn one by one
    low, high = bootstrap_interval(values, n_bootstrap=4000)
    half = 1.96 * values.std() / np.sqrt(2_000)
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_same_seed_same_interval_other_seed_another() -> None:
    values = np.arange(100) % 3 == 0
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    noise = np.random.default_rng(0).random(100)
    assert bootstrap_interval(noise, seed=5) != bootstrap_interval(noise, seed=6)


def test_balanced_interval_agrees_with_resampling_rows_one_by_one() -> None:
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1, 2], [200, 40, 8])
    predicted = np.where(rng.random(248) < 0.7, y, (y + 1) % 3)
    found = evaluate_predictions(
        y, predicted, class_counts=[300, 50, 5], class_names=["a", "b", "c"], n_bootstrap=4000
    )
    naive = np.empty((4000, 2))
    for draw in naive:
        rows = rng.integers(0, 248, 248)
        per_class = [
            (predicted[rows][y[rows] == c] == c).mean() if (y[rows] == c).any() else np.nan for c in range(3)
        ]
        draw[:] = np.nanmean(per_class), per_class[2]
    balanced = np.nanpercentile(naive[:, 0], [2.5, 97.5])
    assert (found.balanced.low, found.balanced.high) == pytest.approx(balanced, abs=0.012)
    assert found.few is not None
    few = np.nanpercentile(naive[:, 1], [2.5, 97.5])
    assert (found.few.low, found.few.high) == pytest.approx(few, abs=0.035)


def test_paired_interval_is_narrower_than_unpaired_and_has_a_sign() -> None:
    b = np.arange(1000) % 2 == 0
    a = b.copy()
    a[1:41:2] = True  # A is right on 20 rows more
    difference, low, high = paired_bootstrap(a, b, seed=1)
    assert difference == pytest.approx(0.02)
    assert 0.010 < low < 0.014
    assert 0.026 < high < 0.031
    assert paired_bootstrap(b, a, seed=1)[0] == pytest.approx(-0.02)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_nothing_to_resample_is_an_error(values: list[float]) -> None:
    with pytest.raises(DataError):
        bootstrap_interval(values)


def test_models_judged_on_different_rows_are_refused() -> None:
    with pytest.raises(DataError, match="same rows"):
        paired_bootstrap([True], [True, False])


def test_no_resamples_is_an_error() -> None:
    with pytest.raises(ConfigError, match="n_bootstrap"):
        bootstrap_interval([1.0], n_bootstrap=0)


def test_calibration_error_has_no_interval() -> None:
    confidence = np.random.default_rng(4).random(300)
    found = evaluate_predictions(
        np.zeros(300, np.int64),
        np.zeros(300, np.int64),
        class_counts=[30, 30],
        class_names=["a", "b"],
        confidence=confidence,
    ).ece
    assert found is not None
    assert found.value == expected_calibration_error(confidence, np.ones(300, bool))
    assert (found.low, found.high) == (None, None)
