"""The record of one model on one test split."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ltstore.errors import DataError
from ltstore.metrics import Evaluation, evaluate_predictions, expected_calibration_error

NAMES = ["oak", "elm", "ash", "yew"]
COUNTS = [500, 60, 5, 3]
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, -1])
PREDICTIONS = np.array([0, 0, 0, 1, 1, 0, 0, 0, 2, 0])


def evaluate(**options: object) -> Evaluation:
    return evaluate_predictions(LABELS, PREDICTIONS, class_counts=COUNTS, class_names=NAMES, **options)  # type: ignore[arg-type]


def test_the_numbers_by_hand() -> None:
    found = evaluate()
    assert (found.n_rows, found.n_skipped) == (9, 1)
    assert found.overall.value == pytest.approx(5 / 9)
    assert found.balanced.value == pytest.approx((3 / 4 + 1 / 2 + 1 / 3) / 3)
    assert found.many is not None
    assert found.many.value == pytest.approx(3 / 4)
    assert found.medium is not None
    assert found.medium.value == pytest.approx(1 / 2)
    assert found.few is not None
    assert found.few.value == pytest.approx(1 / 3)  # yew has no test rows and is left out
    assert (found.worst.name, found.worst.n_rows) == ("ash", 3)
    assert found.worst_tenth == pytest.approx(1 / 3)
    assert found.test_counts.tolist() == [4, 2, 3, 0]
    assert found.top5 is None
    assert found.ece is None


def test_a_group_is_a_mean_over_classes_not_over_rows() -> None:
    y = np.repeat([0, 1], [90, 10])
    predicted = np.zeros(100, np.int64)
    found = evaluate_predictions(y, predicted, class_counts=[200, 300], class_names=["a", "b"])
    assert found.many is not None
    assert found.many.value == pytest.approx(0.5)
    assert found.overall.value == pytest.approx(0.9)


def test_an_empty_group_is_none() -> None:
    found = evaluate_predictions([0, 1], [0, 1], class_counts=[5, 3], class_names=["a", "b"])  # type: ignore[arg-type]
    assert found.many is None
    assert found.medium is None
    assert found.few is not None


def test_intervals_hold_the_value() -> None:
    found = evaluate(confidence=np.linspace(0.1, 1.0, 10))
    for estimate in (found.overall, found.balanced, found.many, found.few):
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high


def test_calibration_and_top5_skip_unlabelled_rows() -> None:
    confidence = np.linspace(0.1, 1.0, 10)
    top5 = np.stack([PREDICTIONS, (PREDICTIONS + 2) % 4], axis=1)
    found = evaluate(confidence=confidence, top5=top5)
    assert found.ece is not None
    expected = expected_calibration_error(confidence[:9], (LABELS == PREDICTIONS)[:9])
    assert found.reliability is not None
    assert found.ece.value == found.reliability.error == pytest.approx(expected, abs=1e-15)
    assert found.top5 is not None
    assert found.top5.value == pytest.approx(7 / 9)  # two rows of ash have it in second place


def test_no_bootstrap_no_intervals() -> None:
    found = evaluate(n_bootstrap=0, confidence=np.full(10, 0.5))
    assert found.overall.low is None
    assert found.ece is not None
    assert found.ece.high is None


def test_json_has_no_nan_and_comes_back_equal() -> None:
    found = evaluate(confidence=np.linspace(0.1, 1.0, 10))
    text = json.dumps(found.to_json(), allow_nan=False)
    again = Evaluation.from_json(json.loads(text))
    np.testing.assert_array_equal(again.class_accuracy, found.class_accuracy)
    assert again.class_accuracy.dtype == np.float64
    assert again.test_counts.dtype == np.int64
    assert again.to_json() == found.to_json()
    assert again.overall == found.overall
    assert again.worst == found.worst
    assert again.reliability is not None
    assert again.reliability.counts.sum() == 9
    older = {name: value for name, value in found.to_json().items() if name != "reliability"}
    assert Evaluation.from_json(older).reliability is None


def test_json_with_a_foreign_key_is_refused() -> None:
    with pytest.raises(TypeError):
        Evaluation.from_json({**evaluate().to_json(), "accuracy": 1.0})


@pytest.mark.parametrize(
    "labels, options, message",
    [
        ([-1, -1], {}, "without a label"),
        ([0, 1], {"class_counts": [1, 2, 3]}, "class_counts"),
        ([0, 1], {"confidence": [0.5]}, "confidence"),
        ([0, 1], {"top5": [0, 1]}, "top5"),
    ],
)
def test_what_cannot_be_judged_is_refused(labels: list[int], options: dict[str, object], message: str) -> None:
    settings = {"class_counts": [5, 3], "class_names": ["a", "b"], **options}
    with pytest.raises(DataError, match=message):
        evaluate_predictions(np.array(labels), np.array([0, 1]), **settings)  # type: ignore[arg-type]


def test_ten_thousand_rows_take_well_under_a_second() -> None:
    import time

    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 100, (2, 10_000))
    start = time.perf_counter()
    evaluate_predictions(
        y, predicted, class_counts=np.arange(100) * 3, class_names=[str(i) for i in range(100)]
    )
    assert time.perf_counter() - start < 1.0  # 0.05 s on an idle core


def test_importing_metrics_loads_only_numpy() -> None:
    heavy = ("sklearn", "torch", "scipy", "pandas")
    code = f"import sys, ltstore.metrics; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
