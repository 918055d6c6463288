"""Gather what the HTML report shows: the judged models, and the rows, donors and synthetic rows behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltstore.errors import LtstoreError
from ltstore.linear import LinearModel
from ltstore.report import ModelResult, ReportData, RowMap, row_map, write_report
from ltstore.store import Store
from ltstore.types import Donors, DoubleArray, IntArray, Sampler
from ltstore.workflow.evaluation import EvaluateResult, JudgedModel
from ltstore.workflow.sampling import StoredSampler, fit_sampler
from ltstore.workflow.selection import Selection, select

MAP_TAIL_CLASSES = 3
MAP_DONORS = 2  # of each tail class
MAP_ROWS = 60  # synthetic rows shown of each class


@dataclass(frozen=True, kw_only=True)
class _Background:
    """What the training rows of the chosen model tell, where the store still holds them unchanged."""

    means: DoubleArray | None = None
    donors: Donors | None = None
    row_map: RowMap | None = None


def write_evaluation_report(path: Path | str, result: EvaluateResult, store: Store) -> None:
    """Write the HTML report of judged models.

    The report is about the best model (by balanced accuracy) that was trained with synthetic rows, or the best of
    all where none was; it is compared with the baseline.

    Parameters
    ----------
    path : path
    result : EvaluateResult
    store : Store
        Where donors and the map of rows come from, if the model was trained on rows it holds unchanged.

    Raises
    ------
    StoreWriteError
    """
    chosen, baseline = _chosen(result), result.models[result.baseline]
    model = chosen.model
    targets = _synthetic_counts(model)
    background = _background(model, store, targets)
    made_from = model.record["made_from"]
    write_report(
        Path(path),
        ReportData(
            title=f"{store.path.stem}: {result.split}",
            class_names=model.class_names,
            class_counts=baseline.model.class_counts,
            models=[
                ModelResult(
                    name=judged.name,
                    evaluation=judged.evaluation,
                    note=_note(judged.model),
                    seconds=judged.model.record.get("train_seconds"),
                )
                for judged in result.models
            ],
            chosen=chosen.name,
            baseline=baseline.name,
            facts=[
                ("Encoder", _encoder(model)),
                (
                    "Training rows",
                    f"{model.class_counts.sum():,} ({made_from.get('subset') or made_from['split']})",
                ),
                ("Classes", f"{len(model.class_names):,}"),
                ("Imbalance", _imbalance(model.class_counts)),
                ("Judged on", f"{len(result.labels):,} rows of {result.split}"),
            ],
            synthetic_counts=targets if targets.any() else None,
            labels=result.labels,
            predictions=chosen.predictions,
            baseline_predictions=baseline.predictions,
            class_means=background.means,
            donors=background.donors,
            row_map=background.row_map,
            provenance={judged.name: judged.model.record for judged in result.models},
        ),
    )


def _chosen(result: EvaluateResult) -> JudgedModel:
    with_synthesis = [judged for judged in result.models if _synthetic_counts(judged.model).any()]
    return max(with_synthesis or result.models, key=lambda judged: judged.evaluation.balanced.value)


def _synthetic_counts(model: LinearModel) -> IntArray:
    counts = model.record.get("synthetic_counts") or np.zeros(len(model.class_names))
    return np.asarray(counts, np.int64)


def _background(model: LinearModel, store: Store, targets: IntArray) -> _Background:
    made_from = model.record["made_from"]
    try:
        selection = select(store, made_from["split"], made_from["subset"])
    except (LtstoreError, KeyError):
        return _Background()
    if selection.rows.digest != made_from["rows"]:
        return _Background()
    donors, _ = selection.donors()
    sampler: Sampler | None = None
    settings = model.record["settings"]
    if settings.get("synthetic"):
        sampler = StoredSampler(selection, settings["synthetic"])
    elif settings.get("sampler", "none") != "none":
        sampler, _ = fit_sampler(selection, settings["sampler"], settings["sampler_settings"])
    seed = model.record.get("seed") or 0
    return _Background(
        means=selection.moments().means,
        donors=donors,
        row_map=_map(selection, donors, sampler, targets, seed),
    )


def _map(
    selection: Selection, donors: Donors, sampler: Sampler | None, targets: IntArray, seed: int
) -> RowMap | None:
    """Lay out the smallest borrowing classes and their first donors, None where nobody borrows."""
    counts = selection.counts
    borrowers = [c for c in counts.argsort(kind="stable") if donors.class_ids[c, 0] >= 0][:MAP_TAIL_CLASSES]
    if not borrowers:
        return None
    shown = np.unique([*borrowers, *donors.class_ids[borrowers, :MAP_DONORS].ravel()])
    shown = shown[shown >= 0]
    labels = selection.rows.labels
    positions = np.flatnonzero(np.isin(labels, shown))
    if len(positions) < 2:
        return None
    made = []
    if sampler is not None:
        made = [
            sampler.sample(int(c), 0, min(int(targets[c]), MAP_ROWS), seed=seed)
            for c in borrowers
            if targets[c]
        ]
    return row_map(
        selection.rows.take(positions),
        labels[positions],
        np.concatenate([rows.X for rows in made]) if made else None,
        np.concatenate([rows.labels for rows in made]) if made else None,
        shown,
    )


def _note(model: LinearModel) -> str:
    settings = model.record["settings"]
    if settings["head"] != "linear":
        return "closed form, no training"
    words = [f"tau {settings['tau']:g}" if settings["tau"] else "plain cross entropy"]
    if settings.get("sampler", "none") != "none":
        words.append(f"{settings['sampler']}, {int(_synthetic_counts(model).sum()):,} synthetic rows")
    return ", ".join(words)


def _encoder(model: LinearModel) -> str:
    encoder = model.encoder
    weights = f"/{encoder.weights}" if encoder.weights else ""
    return f"{encoder.encoder}:{encoder.model}{weights}, {encoder.n_features} features"


def _imbalance(counts: IntArray) -> str:
    filled = counts[counts > 0]
    return f"{filled.max()} to {filled.min()} rows a class (ratio {filled.max() / filled.min():.4g})"
