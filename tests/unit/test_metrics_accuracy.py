"""Class accuracy, confusion and calibration against loops and scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError, LabelError
from ltstore.metrics import (
    ReliabilityBins,
    class_accuracy,
    confusion,
    confusion_pairs,
    expected_calibration_error,
    reliability_bins,
)

LABELS = np.array([0, 0, 0, 1, 1, 3, -1, 3])
PREDICTIONS = np.array([0, 0, 1, 1, 1, 0, 2, 0])


def test_class_accuracy_is_nan_where_a_class_has_no_rows() -> None:
    accuracy = class_accuracy(LABELS, PREDICTIONS, 4)
    np.testing.assert_allclose(accuracy, [2 / 3, 1.0, np.nan, 0.0])
    assert accuracy.dtype == np.float64


def test_an_unlabelled_row_counts_for_nobody() -> None:
    assert confusion(LABELS, PREDICTIONS, 4).sum() == 7


def test_confusion_equals_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 7, 500), rng.integers(0, 7, 500)
    ours = confusion(y, predicted, 7)
    assert ours.dtype == np.int64
    np.testing.assert_array_equal(ours, confusion_matrix(y, predicted, labels=range(7)))


def test_balanced_mean_equals_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(1)
    y = rng.integers(0, 5, 300)
    predicted = np.where(rng.random(300) < 0.6, y, rng.integers(0, 5, 300))
    ours = class_accuracy(y, predicted, 5).mean()
    assert ours == pytest.approx(balanced_accuracy_score(y, predicted), abs=1e-14)


def test_confusion_of_very_many_classes_is_refused_and_pairs_take_its_place() -> None:
    n_classes = 8142
    y = np.array([8141, 8141, 5, 5, 0])
    predicted = np.array([0, 0, 5, 8141, 0])
    with pytest.raises(ConfigError, match="confusion_pairs"):
        confusion(y, predicted, n_classes)
    true_ids, predicted_ids, counts = confusion_pairs(y, predicted, n_classes)
    assert list(zip(true_ids, predicted_ids, counts, strict=True)) == [
        (0, 0, 1),
        (5, 5, 1),
        (5, 8141, 1),
        (8141, 0, 2),
    ]


@pytest.mark.parametrize(
    "labels, predictions, error, message",
    [
        ([0, 1], [0], DataError, "one length"),
        ([0.0, 1.0], [0, 1], DataError, "labels must be integers"),
        ([0, 4], [0, 1], LabelError, r"labels\[1\] is 4"),
        ([0, -2], [0, 1], LabelError, r"labels\[1\] is -2"),
        ([0, 1], [0, -1], LabelError, r"predictions\[1\] is -1"),
    ],
)
def test_bad_columns_are_refused(
    labels: list[int], predictions: list[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        class_accuracy(np.array(labels), np.array(predictions), 4)


def test_calibration_error_of_two_bins_by_hand() -> None:
    # (0, .5]: three rows, accuracy 1/3, mean confidence .4; (.5, 1]: two rows, accuracy 1, mean confidence .8
    confidence = [0.3, 0.4, 0.5, 0.7, 0.9]
    correct = [True, False, False, True, True]
    expected = 3 / 5 * abs(1 / 3 - 0.4) + 2 / 5 * abs(1 - 0.8)
    assert expected_calibration_error(confidence, correct, n_bins=2) == pytest.approx(expected, abs=1e-15)


def test_calibration_error_equals_the_loop_over_bins() -> None:
    rng = np.random.default_rng(2)
    confidence = np.concatenate([rng.random(1000), [0.0, 1.0, 1 / 15, 2 / 15]])
    correct = rng.random(1004) < confidence**2
    total = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15) | ((i == 0) & (confidence == 0))
        if inside.any():
            total += inside.sum() / 1004 * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, correct) == pytest.approx(total, abs=1e-12)


def test_reliability_bins_by_hand() -> None:
    found = reliability_bins([0.3, 0.5, 0.4, 1.0], [True, False, True, True], n_bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.counts.tolist() == [0, 3, 0, 1]
    np.testing.assert_allclose(found.confidence, [np.nan, 0.4, np.nan, 1.0])
    np.testing.assert_allclose(found.accuracy, [np.nan, 2 / 3, np.nan, 1.0])
    again = ReliabilityBins.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert again.to_json() == found.to_json()
    assert again.error == found.error == pytest.approx(3 / 4 * (2 / 3 - 0.4))


def test_bins_of_equal_mass() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(1000) ** 4
    found = reliability_bins(p, rng.random(1000) < p, n_bins=10, equal_mass=True)
    assert found.counts.tolist() == [100] * 10
    np.testing.assert_allclose(found.edges[1:-1], np.sort(p)[99:-1:100])
    ties = reliability_bins([0.5] * 9 + [0.9], [True] * 10, n_bins=5, equal_mass=True)
    assert ties.counts.tolist() == [9, 1]


@pytest.mark.parametrize("confidence", [[1.2, 0.5], [float("nan"), 0.5], [0.5]])
def test_logits_in_place_of_probabilities_are_refused(confidence: list[float]) -> None:
    with pytest.raises(DataError):
        expected_calibration_error(confidence, [True, False])
