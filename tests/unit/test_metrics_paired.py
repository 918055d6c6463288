"""Models on the same rows: intervals, p-values and shares of a gap, against plain loops and known laws."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.metrics import evaluate_predictions, holm, paired_accuracy

COUNTS = [300, 150, 50, 30, 5, 2]
LABELS = np.repeat(np.arange(6), [90, 60, 40, 30, 20, 10])


def model(skill: float, seed: int) -> np.ndarray:
    """Predictions that are right with probability `skill`."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(LABELS)) < skill, LABELS, (LABELS + 1) % 6)


def test_values_are_those_of_each_model_alone() -> None:
    models = [model(0.6, 1), model(0.8, 2)]
    paired = paired_accuracy(LABELS, models, COUNTS)
    for k, predicted in enumerate(models):
        alone = evaluate_predictions(LABELS, predicted, class_counts=COUNTS, class_names=list("abcdef"))
        for measure in ("overall", "balanced", "many", "medium", "few"):
            assert paired.values[measure][k] == pytest.approx(getattr(alone, measure).value)
    both = paired.mean("few", [0, 1])
    assert both is not None
    assert both.value == pytest.approx(paired.values["few"].mean())


def test_intervals_are_those_of_resampled_rows() -> None:
    a, b = model(0.7, 3), model(0.6, 4)
    rng = np.random.default_rng(0)
    naive = np.empty(3000)
    for draw in range(len(naive)):
        rows = rng.integers(len(LABELS), size=len(LABELS))
        y, right_a, right_b = LABELS[rows], (a == LABELS)[rows], (b == LABELS)[rows]
        naive[draw] = np.mean(
            [right_a[y == c].mean() - right_b[y == c].mean() for c in range(6) if (y == c).any()]
        )
    (found,) = (
        paired_accuracy(LABELS, [a, b], COUNTS, n_bootstrap=3000).differences("balanced", [[0]], [1]) or []
    )
    assert (found.low, found.high) == pytest.approx(np.percentile(naive, [2.5, 97.5]), abs=0.012)
    assert found.p_value == pytest.approx(2 * (naive <= 0).mean(), abs=0.02)


def test_p_value_says_what_the_interval_says() -> None:
    paired = paired_accuracy(LABELS, [model(0.6, seed) for seed in range(12)], COUNTS)
    for measure in paired.values:
        for found in paired.differences(measure, [[k] for k in range(1, 12)], [0]) or []:
            outside = found.low > 0 or found.high < 0
            assert outside == (found.p_value < 0.05) or 0.04 < found.p_value < 0.06
            assert found.p_adjusted >= found.p_value >= 2 / 1001


def test_equal_models_differ_in_one_test_of_twenty() -> None:
    rejected = []
    for seed in range(300):
        paired = paired_accuracy(
            LABELS, [model(0.7, 2 * seed), model(0.7, 2 * seed + 1)], COUNTS, n_bootstrap=300
        )
        rejected.append(
            [(paired.differences(m, [[1]], [0]) or [])[0].p_value < 0.05 for m in ("overall", "balanced")]
        )
    assert (np.mean(rejected, axis=0) < 0.09).all()  # three standard errors above 0.05
    assert (np.mean(rejected, axis=0) > 0.02).all()


def test_a_model_does_not_differ_from_itself() -> None:
    (found,) = paired_accuracy(LABELS, [model(0.7, 1)] * 2, COUNTS).differences("few", [[1]], [0]) or []
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_share_of_the_gap_has_its_ends_at_baseline_and_ceiling() -> None:
    models = [model(0.5, 1), model(0.7, 2), model(0.9, 3)]
    paired = paired_accuracy(LABELS, models, COUNTS)
    at_baseline, inside, at_ceiling = (paired.gap_closed("balanced", [k], [0], [2]) for k in range(3))
    assert at_baseline is not None
    assert inside is not None
    assert at_ceiling is not None
    assert (at_baseline.value, at_ceiling.value) == (0, 1)
    assert (at_ceiling.low, at_ceiling.high) == (1, 1)
    a, b, c = paired.values["balanced"]
    assert inside.value == pytest.approx((b - a) / (c - a))
    assert inside.low is not None
    assert inside.high is not None
    assert 0 < inside.low < inside.value < inside.high < 1
    both = paired.gap_closed("balanced", [1, 2], [0], [2])  # the mean of two, as of two seeds
    assert both is not None
    assert both.value == pytest.approx((inside.value + 1) / 2)


def test_no_gap_no_share() -> None:
    paired = paired_accuracy(LABELS, [model(0.7, 1), model(0.7, 2), model(0.3, 3)], COUNTS)
    assert paired.gap_closed("balanced", [0], [0], [1]) is None  # the ceiling may be no better
    assert paired.gap_closed("balanced", [0], [1], [2]) is None  # it is worse


def test_a_group_without_test_rows_is_left_out() -> None:
    paired = paired_accuracy([0, 0, 1, -1], [[0, 1, 1, 0], [0, 0, 0, 0]], [500, 400, 3])
    assert set(paired.values) == {"overall", "balanced", "many"}
    assert paired.mean("few", [0]) is None
    assert paired.differences("few", [[1]], [0]) is None
    assert paired.gap_closed("few", [0], [0], [1]) is None


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="without a label"):
        paired_accuracy([-1, -1], [[0, 0]], [3, 4])
    with pytest.raises(DataError, match="one length"):
        paired_accuracy([0, 1], [[0, 1], [0]], [3, 4])
