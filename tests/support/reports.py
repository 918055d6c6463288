"""A small report with every section in it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ltstore.backtest import Candidate, Card, Member, Result
from ltstore.metrics import evaluate_predictions
from ltstore.metrics.calibration import ReliabilityBins
from ltstore.quality import ClassTable, Quality
from ltstore.report import Example, ModelResult, ReportData, render_report, row_map
from ltstore.types import Donors

N_CLASSES = 6
COUNTS = np.array([400, 150, 60, 30, 5, 2])
NAMES = ["oak", "elm", "ash", "fir", "yew", "box"]


def full_report(**changes: Any) -> ReportData:
    """Six classes, three models, 60 test rows of each class; `changes` replace fields of the data."""
    rng = np.random.default_rng(0)
    names = list(changes.get("class_names", NAMES))
    labels = np.repeat(np.arange(N_CLASSES), 60)
    predictions = {}
    for model, skill in (("plain", 0.5), ("closed form", 0.6), ("with synthesis", 0.75)):
        taken = (labels + rng.integers(1, 3, len(labels))) % N_CLASSES
        predictions[model] = np.where(rng.random(len(labels)) < skill, labels, taken)
    models = [
        ModelResult(
            name=name,
            evaluation=replace(
                evaluate_predictions(
                    labels,
                    predicted,
                    class_counts=COUNTS,
                    class_names=names,
                    confidence=np.full(len(labels), 0.6),
                    n_bootstrap=200,
                ),
                reliability=made_bins(),
            ),
            note=f"note on {name}",
            seconds=1.5,
        )
        for name, predicted in predictions.items()
    ]
    means = rng.normal(size=(N_CLASSES, 8))
    X = (means[labels] + 0.5 * rng.normal(size=(len(labels), 8))).astype(np.float32)
    donor_ids = np.array([[-1, -1], [0, -1], [0, 1], [0, 1], [1, 0], [1, 0]])
    weights = np.array([[0, 0], [1, 0], [0.7, 0.3], [0.6, 0.4], [0.8, 0.2], [0.5, 0.5]], float)
    fields: dict[str, Any] = {
        "title": "Trees",
        "class_names": names,
        "class_counts": COUNTS,
        "models": models,
        "chosen": "with synthesis",
        "baseline": "plain",
        "facts": [("Encoder", "pixels")],
        "synthetic_counts": np.maximum(0, 100 - COUNTS),
        "labels": labels,
        "predictions": predictions["with synthesis"],
        "baseline_predictions": predictions["plain"],
        "class_means": means,
        "donors": Donors(
            class_ids=donor_ids,
            weights=weights,
            similarity=np.where(donor_ids < 0, np.nan, 0.5),
            head=COUNTS > 100,
        ),
        "row_maps": {
            c: row_map(X, labels, X[labels == c] + 0.1, labels[labels == c], np.array([0, 1, c]))
            for c in (4, 5)
        },
        "examples": {5: [example(5), example(5, predicted=0), example(0)]},
        "quality": made_quality(),
        "card": made_card(),
        "provenance": {"seed": 0, "versions": {"numpy": "2"}},
    }
    return ReportData(**{**fields, **changes})


@cache
def full_html() -> str:
    """The page of `full_report()`."""
    return render_report(full_report())


def example(class_id: int, predicted: int | None = None, size: tuple[int, int] = (32, 24)) -> Example:
    """An image of noise: the worst that JPEG and PNG can meet."""
    noise = np.random.default_rng(class_id).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Example(image=Image.fromarray(noise), row_id=7, class_id=class_id, predicted=predicted)


def made_bins() -> ReliabilityBins:
    """Return four bins of confidence, the second of them empty: right in 10, 60 and 90 of 100."""
    return ReliabilityBins(
        edges=np.arange(5) / 4,
        counts=np.array([100, 0, 100, 200]),
        confidence=np.array([0.2, np.nan, 0.7, 0.95]),
        accuracy=np.array([0.1, np.nan, 0.6, 0.9]),
    )


def made_quality(**changes: Any) -> Quality:
    """Measures of six classes: of the rows, and of two large classes cut to 30 and 5 rows."""
    none = np.full(N_CLASSES, np.nan)
    purity, intrusion = (
        np.array([none[0], 0.8, 0.6, 0.4, 0.2, none[0]]),
        np.array([none[0], 0.1, 0.2, 0.5, 0.9, none[0]]),
    )
    precision, cut = none.copy(), np.array([30, 5, 0, 0, 0, 0])
    precision[:2] = 0.5, 0.25
    made = ClassTable(
        counts=COUNTS,
        n_rows=np.array([0, 40, 40, 40, 40, 40]),
        values={"purity": purity, "intrusion": intrusion, "copies": 0 * purity},
        real={"purity": purity / 2, "intrusion": intrusion / 2, "copies": 0 * purity},
    )
    held_out = ClassTable(
        counts=cut, n_rows=cut, values={"precision": precision}, real={"precision": 2 * precision}, n_skipped=1
    )
    fields: dict[str, Any] = {
        "made": made,
        "intruded": np.array([-1, 0, 0, 1, 2, -1]),
        "held_out": held_out,
        "n_synthetic": 3000,
        "k": 5,
        "seconds": 1.0,
    }
    return Quality(**{**fields, **changes})


def made_card(n_candidates: int = 5, chosen: int = 1) -> Card:
    """So many candidates with scores falling, the first three of which cannot be told apart; the last is "la"."""
    names = [Candidate(members=(Member(head="gda"),), posthoc_tau=t / 8) for t in range(n_candidates - 1)]
    names.append(Candidate(members=(Member(),)))
    results = [
        Result(
            candidate=candidate,
            score=0.6 - 0.01 * place,
            head=0.7,
            tail=0.4 + 0.01 * place,
            few=0.3,
            medium=0.5,
            many=None,
            gain=0.01 * (n_candidates - 1 - place),
            gain_low=0.01 * (n_candidates - 1 - place) - 0.005,
            gain_high=0.01 * (n_candidates - 1 - place) + 0.005,
            behind=0.01 * place,
            behind_error=0.021,
            n_trials=4,
        )
        for place, candidate in enumerate(names)
    ]
    return Card(
        results=tuple(results),
        chosen=chosen,
        reason="the best tail among 3 whose scores cannot be told apart",
        rows_digest="sha256:0",
        n_trials=4,
        rows_per_class=200,
        seed=0,
        n_head=3,
        n_tail=3,
        seconds=1.0,
    )
