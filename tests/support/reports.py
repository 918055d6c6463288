"""A small report with every section in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ltstore.metrics import evaluate_predictions
from ltstore.report import ModelResult, ReportData, row_map
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
            evaluation=evaluate_predictions(
                labels,
                predicted,
                class_counts=COUNTS,
                class_names=names,
                confidence=np.full(len(labels), 0.6),
                n_bootstrap=200,
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
        "row_map": row_map(X, labels, X[240:] + 0.1, labels[240:], np.array([1, 4, 5])),
        "provenance": {"seed": 0, "versions": {"numpy": "2"}},
    }
    return ReportData(**{**fields, **changes})
