"""Judge models on a split, side by side, and write the report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.errors import ConfigError, DataError, LtstoreError
from ltstore.linear import LinearModel, load_model, predict_top
from ltstore.metrics import MEASURES, Difference, Estimate, Evaluation, evaluate_predictions, paired_accuracy
from ltstore.rows import BLOCK_ROWS
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.types import FloatArray, IntArray, Progress, Rows, no_progress
from ltstore.workflow.evaluation.class_table import write_class_table
from ltstore.workflow.evaluation.cost import Cost
from ltstore.workflow.evaluation.seeds import SeedGroup, seed_groups
from ltstore.workflow.naming import model_names, position
from ltstore.workflow.selection import Selection, select

TOP_CLASSES = 5
RESAMPLES, RESAMPLES_PER_MODEL = 1000, 100
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
    differences : mapping of measure to Difference or None
        Accuracy minus the baseline's on the same rows; None for the baseline itself and for groups without test rows.
        p-values are adjusted over the models, for each measure by itself.
    cost : Cost
    gap_closed : mapping of measure to Estimate or None
        `ltstore.metrics.PairedAccuracy.gap_closed`; empty without a ceiling.
    seconds : float
        Of judging.
    """

    name: str
    model: LinearModel
    evaluation: Evaluation
    predictions: IntArray
    differences: Mapping[str, Difference | None]
    cost: Cost
    gap_closed: Mapping[str, Estimate | None]
    seconds: float

    @property
    def gain(self) -> tuple[float, float, float]:
        """Overall accuracy minus the baseline's: (difference, low, high), 95 % paired bootstrap."""
        found = self.differences["overall"]
        return (0.0, 0.0, 0.0) if found is None else (found.value, found.low, found.high)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: every figure, no predictions."""
        told: dict[str, Any] = {
            "name": self.name,
            "settings": self.model.record["settings"],
            "gain_over_baseline": dict(zip(("value", "low", "high"), self.gain, strict=True)),
            "differences": _json(self.differences),
            "cost": self.cost.to_json(),
            "seconds": self.seconds,
            **self.evaluation.to_json(),
        }
        return told | ({"gap_closed": _json(self.gap_closed)} if self.gap_closed else {})


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
    n_bootstrap : int
        Resamples behind differences.
    ceiling : int or None
        Position of the model whose gain over the baseline is the gap that others close a share of.
    seeds : tuple of SeedGroup
        Models that differ by nothing but their seed, taken together.
    warnings : tuple of str
        What makes the figures doubtful, e.g. models that were trained on rows they are judged on.
    """

    split: str
    subset: str | None
    labels: IntArray
    models: tuple[JudgedModel, ...]
    baseline: int
    groups_by: str
    n_bootstrap: int = 1000
    ceiling: int | None = None
    seeds: tuple[SeedGroup, ...] = ()
    warnings: tuple[str, ...] = ()

    def write_class_table(self, path: Path | str) -> None:
        """Write every class with its accuracies to a CSV file: see `write_class_table`."""
        first = self.models[self.baseline]
        evaluations = {one.name: one.evaluation for one in self.models}
        write_class_table(path, evaluations, first.model.class_names, first.name)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: every figure, no predictions."""
        return {
            "split": self.split,
            "subset": self.subset,
            "baseline": self.models[self.baseline].name,
            "groups_by": self.groups_by,
            "ceiling": None if self.ceiling is None else self.models[self.ceiling].name,
            "n_bootstrap": self.n_bootstrap,
            "warnings": list(self.warnings),
            "models": [result.to_json() for result in self.models],
            "seeds": [group.to_json() for group in self.seeds],
        }


def evaluate(
    models: Sequence[Path | str] | Path | str,
    store: Place | Store,
    *,
    split: str = "test",
    subset: str | None = None,
    baseline: Path | str | None = None,
    ceiling: Path | str | None = None,
    report: Path | str | None = None,
    per_class: Path | str | None = None,
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
    ceiling : path, optional
        One of `models`, made without the long tail (of all rows, or balanced ones): others are told by the share of its
        gain over the baseline that they have too.
    report : path, optional
        HTML file to write: about the last model, compared with the baseline.
    per_class : path, optional
        CSV file to write, see `ltstore.workflow.evaluation.class_table`.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ModelNotFoundError, EncoderMismatchError, DataError, StoreNotFoundError
    """
    selection = select(store, split, subset)
    selection.require_labels()
    selection.check()
    paths = model_names([models] if isinstance(models, str | Path) else models)
    loaded = {name: load_model(path) for name, path in paths.items()}
    result = compare(
        loaded,
        selection.rows,
        split=split,
        subset=subset,
        baseline=0 if baseline is None else position(baseline, paths, "baseline"),
        ceiling=None if ceiling is None else position(ceiling, paths, "ceiling"),
        seed=seed,
        progress=progress,
    )
    result = replace(result, warnings=tuple(_overlaps(loaded, selection)))
    if per_class is not None:
        result.write_class_table(per_class)
    if report is not None:
        from ltstore.workflow.evaluation.reporting import write_evaluation_report

        write_evaluation_report(report, result, selection.store)
    return result


def compare(
    models: dict[str, LinearModel],
    rows: Rows,
    *,
    split: str = "test",
    subset: str | None = None,
    baseline: int = 0,
    ceiling: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> EvaluateResult:
    """Judge models in memory on labelled rows; see `evaluate`.

    Differences have 1,000 resamples, or 100 for each model that is compared with the baseline where those are more: so
    that p-values of many models, adjusted, can still be small.
    """
    if not models:
        raise ConfigError("no model to evaluate")
    # Groups are by one training set, or the columns would not compare: by the one with the longest tail.
    groups_by = max(models, key=lambda name: _imbalance(models[name].class_counts))
    class_counts = models[groups_by].class_counts
    judged: list[tuple[Evaluation, IntArray, float]] = []
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
        judged.append((evaluation, predictions, time.perf_counter() - started))
    n_bootstrap = max(RESAMPLES, RESAMPLES_PER_MODEL * (len(models) - 1))
    paired = paired_accuracy(
        labels, [predictions for _, predictions, _ in judged], class_counts, seed=seed, n_bootstrap=n_bootstrap
    )
    others = [k for k in range(len(models)) if k != baseline]
    differences = {
        measure: paired.differences(measure, [[k] for k in others], [baseline]) for measure in MEASURES
    }
    results = tuple(
        JudgedModel(
            name=name,
            model=models[name],
            evaluation=evaluation,
            predictions=predictions,
            differences={
                measure: None if found is None or k == baseline else found[others.index(k)]
                for measure, found in differences.items()
            },
            cost=Cost.of(models[name]),
            gap_closed={}
            if ceiling is None
            else {measure: paired.gap_closed(measure, [k], [baseline], [ceiling]) for measure in MEASURES},
            seconds=seconds,
        )
        for k, (name, (evaluation, predictions, seconds)) in enumerate(zip(models, judged, strict=True))
    )
    return EvaluateResult(
        split=split,
        subset=subset,
        labels=labels,
        models=results,
        baseline=baseline,
        groups_by=groups_by,
        n_bootstrap=n_bootstrap,
        ceiling=ceiling,
        seeds=seed_groups(models, results[baseline].name, paired),
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


def _json(found: Mapping[str, Difference | Estimate | None]) -> dict[str, dict[str, float] | None]:
    return {measure: None if one is None else vars(one) for measure, one in found.items()}
