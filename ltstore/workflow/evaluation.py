"""Judge models on a split, side by side, and write the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.linear import LinearModel, load_model, predict_rows
from ltstore.metrics import Evaluation, evaluate_predictions, paired_bootstrap
from ltstore.store import Store
from ltstore.types import BoolArray, FloatArray, IntArray, Progress, Rows, no_progress
from ltstore.workflow.selection import select

TOP_CLASSES = 5


@dataclass(frozen=True, kw_only=True)
class JudgedModel:
    """One model on the rows it was judged on.

    Attributes
    ----------
    name : str
    model : LinearModel
    evaluation : Evaluation
    predictions : (N,) int64
    gain : tuple of float
        Overall accuracy minus the baseline's on the same rows: (difference, low, high), 95 % paired bootstrap.
    seconds : float
    """

    name: str
    model: LinearModel
    evaluation: Evaluation
    predictions: IntArray
    gain: tuple[float, float, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """Models side by side, in the order they were given; `baseline` is a position in it."""

    split: str
    subset: str | None
    labels: IntArray
    models: tuple[JudgedModel, ...]
    baseline: int

    @property
    def best(self) -> int:
        """Position of the model with the highest balanced accuracy."""
        return int(np.argmax([result.evaluation.balanced.value for result in self.models]))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: every figure, no predictions."""
        return {
            "split": self.split,
            "subset": self.subset,
            "baseline": self.models[self.baseline].name,
            "models": [
                {
                    "name": result.name,
                    "settings": result.model.record["settings"],
                    "gain_over_baseline": dict(zip(("value", "low", "high"), result.gain, strict=True)),
                    "seconds": result.seconds,
                    **result.evaluation.to_json(),
                }
                for result in self.models
            ],
        }


def evaluate(
    models: Sequence[Path | str],
    store: Path | str | Store,
    *,
    split: str = "test",
    subset: str | None = None,
    baseline: Path | str | None = None,
    report: Path | str | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> EvaluateResult:
    """Judge saved models on the labelled rows of a split.

    Parameters
    ----------
    models : sequence of path
        Model directories; names in tables are their last path parts.
    store : path or Store
    split, subset : str
    baseline : path, optional
        One of `models`, that the others are compared with; the first one if left out.
    report : path, optional
        HTML file to write.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ModelNotFoundError, EncoderMismatchError, DataError, StoreNotFoundError
    """
    selection = select(store, split, subset)
    selection.require_labels()
    loaded = {name: load_model(path) for name, path in _names(models).items()}
    result = compare(
        loaded,
        selection.rows,
        split=split,
        subset=subset,
        baseline=0 if baseline is None else _position(baseline, models),
        seed=seed,
        progress=progress,
    )
    if report is not None:
        from ltstore.workflow.reporting import write_evaluation_report

        write_evaluation_report(report, result, selection.store)
    return result


def compare(
    models: dict[str, LinearModel],
    rows: Rows,
    *,
    split: str = "test",
    subset: str | None = None,
    baseline: int = 0,
    seed: int = 0,
    progress: Progress = no_progress,
) -> EvaluateResult:
    """Judge models in memory on labelled rows; see `evaluate`.

    Many, medium and few are by the class sizes that the baseline was trained on, for all models alike.
    """
    if not models:
        raise ConfigError("no model to evaluate")
    # Groups of classes are those of one training set, or the columns would not compare: the baseline's.
    class_counts = list(models.values())[baseline].class_counts
    judged: list[tuple[str, LinearModel, Evaluation, IntArray, BoolArray, float]] = []
    labels = rows.labels
    for name, model in models.items():
        if model.class_names != rows.class_names:
            raise DataError(
                f"model {name!r} knows {len(model.class_names)} classes, the rows have {len(rows.class_names)} "
                "or other names: train it on a store with the same classes"
            )
        started = time.perf_counter()
        predictions, confidence, best = _judge(model, rows, progress)
        evaluation = evaluate_predictions(
            labels,
            predictions,
            confidence=confidence,
            top5=best if len(model.class_names) > TOP_CLASSES else None,
            class_counts=class_counts,
            class_names=model.class_names,
            seed=seed,
        )
        right = predictions[labels >= 0] == labels[labels >= 0]
        judged.append((name, model, evaluation, predictions, right, time.perf_counter() - started))
    reference = judged[baseline][4]
    results = tuple(
        JudgedModel(
            name=name,
            model=model,
            evaluation=evaluation,
            predictions=predictions,
            gain=paired_bootstrap(right, reference, seed),
            seconds=seconds,
        )
        for name, model, evaluation, predictions, right, seconds in judged
    )
    return EvaluateResult(split=split, subset=subset, labels=labels, models=results, baseline=baseline)


def _judge(model: LinearModel, rows: Rows, progress: Progress) -> tuple[IntArray, FloatArray, IntArray]:
    """Return (predicted class, its probability, the best five classes in any order) of every row."""
    predictions, confidence, best = [], [], []
    k = min(TOP_CLASSES, len(model.class_names))
    for _, logits in predict_rows(model, rows):
        top = logits.max(axis=1, keepdims=True)
        predictions.append(logits.argmax(axis=1))
        confidence.append(1 / np.exp(logits - top).sum(axis=1))  # the softmax of the largest logit
        best.append(np.argpartition(-logits, k - 1, axis=1)[:, :k])
        progress(len(logits), {})
    return np.concatenate(predictions), np.concatenate(confidence), np.concatenate(best)


def _names(models: Sequence[Path | str]) -> dict[str, Path]:
    """Return {name: path}; the last path part, or the whole path where two would share a name."""
    paths = [Path(model) for model in models]
    last = [path.name for path in paths]
    named = {(path.name if last.count(path.name) == 1 else str(path)): path for path in dict.fromkeys(paths)}
    if not named:
        raise ConfigError("no model to evaluate")
    return named


def _position(baseline: Path | str, models: Sequence[Path | str]) -> int:
    paths = list(dict.fromkeys(Path(model).resolve() for model in models))
    if Path(baseline).resolve() not in paths:
        raise ConfigError(f"the baseline {baseline} is not among the models: {', '.join(map(str, models))}")
    return paths.index(Path(baseline).resolve())
