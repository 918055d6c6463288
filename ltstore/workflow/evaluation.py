"""Judge models on a split, side by side, and write the report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.errors import ConfigError, DataError, LtstoreError
from ltstore.linear import LinearModel, load_model, predict_top
from ltstore.metrics import Evaluation, evaluate_predictions, paired_bootstrap
from ltstore.rows import BLOCK_ROWS
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.types import BoolArray, FloatArray, IntArray, Progress, Rows, no_progress
from ltstore.workflow.selection import Selection, select

TOP_CLASSES = 5
_BLOCK_LOGITS = 1 << 23  # logits in memory at once: 32 MB


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
    """Models side by side, in the order they were given.

    Attributes
    ----------
    split, subset : str
    labels : (N,) int64
    models : tuple of JudgedModel
    baseline : int
        Position of the model that the others are compared with.
    groups_by : str
        Name of the model by whose training rows classes are many, medium or few: the one with the longest tail.
    warnings : tuple of str
        What makes the figures doubtful, e.g. models that were trained on rows they are judged on.
    """

    split: str
    subset: str | None
    labels: IntArray
    models: tuple[JudgedModel, ...]
    baseline: int
    groups_by: str
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: every figure, no predictions."""
        return {
            "split": self.split,
            "subset": self.subset,
            "baseline": self.models[self.baseline].name,
            "groups_by": self.groups_by,
            "warnings": list(self.warnings),
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
    models: Sequence[Path | str] | Path | str,
    store: Place | Store,
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
    models : path or sequence of paths
        Model directories; names in tables are their last path parts.
    store : path or Store
    split, subset : str
    baseline : path, optional
        One of `models`, that the others are compared with; the first one if left out.
    report : path, optional
        HTML file to write: about the last model, compared with the baseline.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ModelNotFoundError, EncoderMismatchError, DataError, StoreNotFoundError
    """
    selection = select(store, split, subset)
    selection.require_labels()
    paths = _names([models] if isinstance(models, str | Path) else models)
    loaded = {name: load_model(path) for name, path in paths.items()}
    result = compare(
        loaded,
        selection.rows,
        split=split,
        subset=subset,
        baseline=0 if baseline is None else _position(baseline, paths),
        seed=seed,
        progress=progress,
    )
    result = replace(result, warnings=tuple(_overlaps(loaded, selection)))
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
    """Judge models in memory on labelled rows; see `evaluate`."""
    if not models:
        raise ConfigError("no model to evaluate")
    # Groups are by one training set, or the columns would not compare: by the one with the longest tail.
    groups_by = max(models, key=lambda name: _imbalance(models[name].class_counts))
    class_counts = models[groups_by].class_counts
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
    return EvaluateResult(
        split=split, subset=subset, labels=labels, models=results, baseline=baseline, groups_by=groups_by
    )


def _judge(model: LinearModel, rows: Rows, progress: Progress) -> tuple[IntArray, FloatArray, IntArray]:
    """Return (predicted class, its probability, the best five classes) of every row."""
    block_rows = max(256, min(BLOCK_ROWS, _BLOCK_LOGITS // model.n_classes))
    top = predict_top(model, rows, TOP_CLASSES, block_rows)
    progress(rows.n_samples, {})
    return top.labels[:, 0], top.probabilities[:, 0], top.labels


def _imbalance(counts: IntArray) -> float:
    filled = counts[counts > 0]
    return float(filled.max() / filled.min()) if len(filled) else 0.0


def _overlaps(models: dict[str, LinearModel], selection: Selection) -> Iterator[str]:
    """Say which models were trained on rows of this very store that they are judged on now."""
    for name, model in models.items():
        made_from = model.record.get("made_from", {})
        if made_from.get("split") != selection.split or made_from.get("class_text"):  # text saw no row
            continue
        try:
            trained = select(selection.store, selection.split, made_from.get("subset"))
        except LtstoreError:
            continue
        shared = int(np.isin(selection.rows.row_ids, trained.rows.row_ids).sum())
        if shared and trained.rows.digest == made_from.get("rows"):
            yield f"{name} was trained on {shared:,} of the {selection.rows.n_samples:,} rows it is judged on"


def _names(models: Sequence[Path | str]) -> dict[str, Path]:
    """Return {name: path}; the last path part, or the whole path where two would share a name."""
    paths = list(dict.fromkeys(Path(model) for model in models))
    last = [path.name for path in paths]
    return {(path.name if last.count(path.name) == 1 else str(path)): path for path in paths}


def _position(baseline: Path | str, paths: dict[str, Path]) -> int:
    found = [i for i, path in enumerate(paths.values()) if path == Path(baseline)]
    found += [i for i, path in enumerate(paths.values()) if path.resolve() == Path(baseline).resolve()]
    if not found:
        raise ConfigError(
            f"the baseline {baseline} is not among the models: {', '.join(map(str, paths.values()))}"
        )
    return found[0]
