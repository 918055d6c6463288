"""What to look at first: a few sentences, and the worst classes with their reasons and images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ltstore.metrics import Estimate, Evaluation
from ltstore.metrics.accuracy import GROUPS
from ltstore.report.data import Example, ReportData
from ltstore.report.neighbors import (
    ClassSimilarity,
    Confused,
    confused_classes,
    nearest_donor_similarity,
    why,
    worst_classes,
)
from ltstore.report.text import points, shown
from ltstore.report.thumbnail import thumbnail

N_CARDS = 3
MAX_WORST_CLASSES = 12
MAX_IMAGES = 12  # of a card: with images of 120 pixels, a card is under 150 kB
_SIDE = 120


def look_section(data: ReportData, similarity: ClassSimilarity) -> dict[str, Any]:
    """Return what the section shows: `findings` in words, `cards`, then a table of `more` classes."""
    evaluation = data.chosen_model.evaluation
    ids = worst_classes(evaluation, MAX_WORST_CLASSES)
    stories = confused_classes(data, ids, similarity) or [_alone(evaluation, c) for c in ids]
    nearest = nearest_donor_similarity(data)
    before = data.baseline_model.evaluation.class_accuracy if data.baseline_model is not None else None
    classes = [
        {
            "story": story,
            "why": why(data, story),
            "synthetic": None if data.synthetic_counts is None else int(data.synthetic_counts[story.class_id]),
            "before": None if before is None else float(before[story.class_id]),
            "donor": None if nearest is None else _donor(data, story.class_id, float(nearest[story.class_id])),
            "pictures": list(_pictures(data, story.class_id)) if place < N_CARDS else [],
        }
        for place, story in enumerate(stories)
    ]
    return {
        "findings": list(_findings(data)),
        "cards": classes[:N_CARDS],
        "more": classes[N_CARDS:],
        "total": int((evaluation.test_counts > 0).sum()),
        "has_takers": data.predictions is not None,
        "no_examples": shown(data.no_examples, 200),
    }


def _findings(data: ReportData) -> Iterator[str]:
    """Sentences that need nothing but the figures: the gap, what was gained and lost, what synthesis did."""
    evaluation, baseline, reference = data.chosen_model.evaluation, data.baseline_model, data.reference_model
    if evaluation.few is not None and evaluation.many is not None:
        yield (
            f"Classes with fewer than 20 training rows (few) are right {_share(evaluation.few)} of the time, "
            f"those with more than 100 (many) {_share(evaluation.many)}."
        )
    if baseline is not None:
        changes = _changes(evaluation, baseline.evaluation)
        yield f"Against {shown(baseline.name)}: {changes} points."
    if data.without_synthesis is not None and reference is not None:
        few, other = evaluation.few, reference.evaluation.few
        noise = few is not None and other is not None and (few.low or 0) <= other.value <= (few.high or 0)
        yield (
            f"Its synthetic rows, against {shown(reference.name)} without them: "
            f"{_changes(evaluation, reference.evaluation)} points{'; on few no more than noise' * noise}."
        )
    accuracy = evaluation.class_accuracy[evaluation.test_counts > 0]
    n_low = int((accuracy < 0.1).sum())
    if n_low:
        yield f"{n_low:,} of {len(accuracy):,} classes are right in fewer than one of ten test rows."


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f}\N{NO-BREAK SPACE}%"


def _changes(evaluation: Evaluation, other: Evaluation) -> str:
    pairs = [(name, getattr(evaluation, name), getattr(other, name)) for name in GROUPS]
    return ", ".join(
        f"{name} {points(a.value - b.value)}" for name, a, b in pairs if a is not None and b is not None
    )


def _alone(evaluation: Evaluation, class_id: int) -> Confused:
    return Confused(
        class_id=class_id,
        n_rows=int(evaluation.test_counts[class_id]),
        accuracy=float(evaluation.class_accuracy[class_id]),
        takers=(),
        n_takers=0,
    )


def _donor(data: ReportData, class_id: int, similarity: float) -> tuple[int, float] | None:
    if data.donors is None or data.donors.class_ids[class_id, 0] < 0:
        return None
    return int(data.donors.class_ids[class_id, 0]), similarity


def _pictures(data: ReportData, class_id: int) -> Iterator[dict[str, Any]]:
    """Its training images, the test images taken for other classes, and those classes' own, as far as there are any."""
    examples = list(data.examples.get(class_id, ()))[:MAX_IMAGES]
    kinds: list[tuple[str, list[Example]]] = [
        ("trained", [e for e in examples if e.predicted is None and e.class_id == class_id]),
        ("mistaken", [e for e in examples if e.predicted is not None]),
        ("taker", [e for e in examples if e.predicted is None and e.class_id != class_id]),
    ]
    for kind, found in kinds:
        if found:
            images = [
                {"url": thumbnail(e.image, _SIDE), "about": e, "coarse": max(e.image.size) <= 48} for e in found
            ]
            yield {"kind": kind, "images": images}
