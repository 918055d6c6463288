"""Who takes the rows of a class."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.metrics import evaluate_predictions
from ltstore.report import ModelResult, ReportData
from ltstore.report.neighbors import (
    ClassSimilarity,
    confused_classes,
    errors_to_neighbors,
    most_confused,
    why,
    worst_classes,
)
from ltstore.types import Donors
from support.reports import COUNTS, full_report

# oak 0: 3 of 4 right; yew 4: 1 of 5 right, 3 to oak, 1 to fir; elm 1: 16 of 20 right; box 5 has no test rows
LABELS = np.array([0, 0, 0, 0, 4, 4, 4, 4, 4, -1] + 20 * [1])
PREDICTIONS = np.array([0, 0, 0, 1, 0, 0, 0, 3, 4, 2] + 16 * [1] + 4 * [0])
MEANS = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-1.0, 0.2], [0.8, 0.6], [0.0, -1.0]])


@pytest.fixture
def data() -> ReportData:
    return full_report(labels=LABELS, predictions=PREDICTIONS, baseline_predictions=None, class_means=MEANS)


def test_takers_are_ordered_by_what_they_take(data: ReportData) -> None:
    (yew,) = confused_classes(data, [4, 5], ClassSimilarity(data))  # box has no rows to lose
    assert (yew.class_id, yew.n_rows, yew.n_takers) == (4, 5, 2)
    assert yew.accuracy == pytest.approx(0.2)
    assert [(t.class_id, t.n_rows, t.share) for t in yew.takers] == [(0, 3, 0.6), (3, 1, 0.2)]


def test_similarity_is_the_cosine_and_its_rank(data: ReportData) -> None:
    similarity = ClassSimilarity(data)
    cosine, rank = similarity.between(4, 0)
    assert cosine == pytest.approx(0.8)
    assert rank == 2  # elm, at (.9, .1), is nearer
    assert similarity.between(4, 1)[1] == 1


def test_without_means_the_donors_similarity_is_used(data: ReportData) -> None:
    similarity = ClassSimilarity(full_report(class_means=None))
    assert similarity.between(4, 1) == (0.5, None)
    assert similarity.between(4, 5) == (None, None)
    assert similarity.nearest(2) is None


def test_most_confused_lose_the_largest_share_to_one_class(data: ReportData) -> None:
    assert most_confused(data, 10) == [4, 0, 1]  # elm loses most rows, but a fifth of its own
    assert most_confused(data, 1) == [4]


def test_share_of_errors_that_stay_among_neighbours() -> None:
    rng = np.random.default_rng(0)
    n_classes, n_rows = 20, 400
    means = rng.normal(size=(n_classes, 4))
    labels, predictions = rng.integers(0, n_classes, (2, n_rows))
    base = full_report()
    counts = np.repeat([500, 50, 5], [8, 6, 6])
    from ltstore.metrics import evaluate_predictions
    from ltstore.report import ModelResult

    names = [str(i) for i in range(n_classes)]
    evaluation = evaluate_predictions(
        labels, predictions, class_counts=counts, class_names=names, n_bootstrap=0
    )
    data = ReportData(
        title=base.title,
        class_names=names,
        class_counts=counts,
        models=[ModelResult(name="m", evaluation=evaluation)],
        labels=labels,
        predictions=predictions,
        class_means=means,
    )
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    near, few = [], []
    for y, predicted in zip(labels, predictions, strict=True):
        if y != predicted:
            others = sorted((c for c in range(n_classes) if c != y), key=lambda c, y=y: -unit[y] @ unit[c])  # type: ignore[misc]
            near.append(predicted in others[:5])
            few.append(counts[y] < 20)
    found = errors_to_neighbors(data, ClassSimilarity(data))
    assert found["all"] == pytest.approx(np.mean(near))
    assert found["few"] == pytest.approx(np.mean(np.array(near)[np.array(few)]))


def test_reasons_are_rows_takers_the_baseline_and_doubt(data: ReportData) -> None:
    (yew,) = confused_classes(data, [4], ClassSimilarity(data))
    found = why(data, yew)
    assert found.few
    assert found.times == COUNTS[0] / COUNTS[4]  # oak takes most of its rows
    assert not found.scattered
    assert found.below == pytest.approx(data.models[0].evaluation.class_accuracy[4] - 0.2)
    assert found.doubtful
    (elm,) = confused_classes(data, [1], ClassSimilarity(data))
    found = why(data, elm)
    assert (found.few, found.times, found.doubtful) == (False, None, False)


def test_errors_that_no_class_takes_a_fifth_of_scatter(data: ReportData) -> None:
    labels, predictions = np.zeros(20, np.int64), np.array(14 * [0] + [1, 1, 2, 3, 4, 5])
    (oak,) = confused_classes(
        full_report(labels=labels, predictions=predictions, baseline_predictions=None),
        [0],
        ClassSimilarity(data),
    )
    assert why(data, oak).scattered


def test_a_donor_is_far_in_the_last_quarter_of_the_tail() -> None:
    n_classes = 10
    labels = np.arange(n_classes)
    evaluation = evaluate_predictions(
        labels, labels, class_counts=[500, 500] + 8 * [5], class_names=list(map(str, labels)), n_bootstrap=2
    )
    similarity = np.append([np.nan, np.nan], np.linspace(0.2, 0.9, 8))[:, None]
    data = ReportData(
        title="t",
        class_names=list(map(str, labels)),
        class_counts=np.array([500, 500] + 8 * [5]),
        models=[ModelResult(name="m", evaluation=evaluation)],
        labels=labels,
        predictions=labels,
        donors=Donors(
            class_ids=np.where(np.isnan(similarity), -1, 0),
            weights=np.nan_to_num(similarity * 0 + 1),
            similarity=similarity,
            head=labels < 2,
        ),
    )
    stories = confused_classes(data, list(labels), ClassSimilarity(data))
    assert [story.class_id for story in stories if why(data, story).far_donor] == [2, 3]


def test_the_worst_classes_are_those_with_test_rows_and_of_equals_the_smallest() -> None:
    evaluation = evaluate_predictions(
        [0, 0, 1, 1, 2, 2],
        [0, 1, 0, 1, 2, 2],
        class_counts=[9, 3, 1, 0],
        class_names=list("abcd"),
        n_bootstrap=2,
    )
    assert worst_classes(evaluation, 9) == [1, 0, 2]
    assert worst_classes(evaluation, 1) == [1]


def test_no_predictions_no_stories() -> None:
    data = full_report(labels=None, predictions=None, baseline_predictions=None)
    assert confused_classes(data, [0], ClassSimilarity(data)) == []
    assert most_confused(data, 3) == []
    assert errors_to_neighbors(data, ClassSimilarity(data)) == {}
