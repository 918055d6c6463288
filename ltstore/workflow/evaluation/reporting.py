"""Gather what the HTML report shows: the judged models, and the rows, donors and synthetic rows behind them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.backtest import Card
from ltstore.errors import DataError, LtstoreError
from ltstore.linear import LinearModel
from ltstore.linear.closed_form import CLOSED_FORMS
from ltstore.quality import Quality
from ltstore.report import Example, ModelResult, ReportData, RowMap, row_map, worst_classes, write_report
from ltstore.store import Store
from ltstore.types import Donors, DoubleArray, IntArray, Sampler
from ltstore.workflow.backtesting import kept_card
from ltstore.workflow.evaluation.examples import class_examples
from ltstore.workflow.evaluation.judging import EvaluateResult, JudgedModel
from ltstore.workflow.measuring import measure_sampler
from ltstore.workflow.sampling import StoredSampler, build_sampler, fit_sampler
from ltstore.workflow.selection import Selection, select
from ltstore.workflow.training.fitted import ZERO_SHOT

_log = logging.getLogger(__name__)

MAP_CLASSES = 8  # the worst ones
MAP_OTHERS = 2  # of each: classes that take its rows, and its donors
MAP_ROWS = 500  # in one map
SYNTHETIC_ROWS = 60  # of the class, in its map
IMAGE_CLASSES = 3  # the worst ones


@dataclass(frozen=True, kw_only=True)
class _Background:
    """What the training rows of the chosen model tell, where the store still holds them unchanged."""

    means: DoubleArray | None = None
    selection: Selection | None = None
    donors: Donors | None = None
    row_maps: Mapping[int, RowMap] = field(default_factory=dict)
    quality: Quality | None = None
    card: Card | None = None


def write_evaluation_report(path: Path | str, result: EvaluateResult, store: Store) -> None:
    """Write the HTML report of judged models.

    The report is about the last model (nothing is chosen on the rows that judge), compared with the baseline.

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
    chosen, baseline = result.models[-1], result.models[result.baseline]
    model = chosen.model
    targets = _synthetic_counts(model)
    worst = worst_classes(chosen.evaluation, MAP_CLASSES)
    takers = {c: _takers(c, result.labels, chosen.predictions) for c in worst}
    background = _background(model, store, targets, takers)
    examples = _examples(result, store, background.selection, {c: takers[c] for c in worst[:IMAGE_CLASSES]})
    made_from = model.record.get("made_from", {})
    judged_on = result.split if result.subset is None else f"{result.split}, subset {result.subset}"
    write_report(
        Path(path),
        ReportData(
            title=f"{store.location.name.removesuffix('.zarr')}: {judged_on}",
            class_names=model.class_names,
            class_counts=chosen.evaluation.class_counts,
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
            without_synthesis=_without_synthesis(chosen, result),
            facts=[
                ("Encoder", _encoder(model)),
                (
                    "Training rows",
                    f"{model.class_counts.sum():,} ({made_from.get('subset') or made_from['split']})",
                ),
                ("Classes", f"{len(model.class_names):,}"),
                ("Imbalance", _imbalance(model.class_counts)),
                ("Judged on", f"{chosen.evaluation.n_rows:,} rows of {judged_on}"),
                *(("Warning", text) for text in result.warnings),
            ],
            synthetic_counts=targets if targets.any() else None,
            labels=result.labels,
            predictions=chosen.predictions,
            baseline_predictions=baseline.predictions,
            class_means=background.means,
            donors=background.donors,
            row_maps=background.row_maps,
            examples=examples,
            no_examples="" if examples else "these rows came without images, or the images have moved",
            quality=background.quality,
            card=background.card,
            card_used=_uses(model, background.card),
            provenance={judged.name: judged.model.record for judged in result.models},
        ),
    )


def _takers(class_id: int, labels: IntArray, predictions: IntArray) -> list[int]:
    """Return the classes that rows of a class are taken for, most rows first."""
    others, rows = np.unique(predictions[(labels == class_id) & (predictions != class_id)], return_counts=True)
    return [int(c) for c in others[np.argsort(-rows, kind="stable")]]


def _examples(
    result: EvaluateResult, store: Store, trained: Selection | None, takers: Mapping[int, list[int]]
) -> Mapping[int, list[Example]]:
    """Return images of a few classes, none where they cannot be had."""
    try:
        judged = select(store, result.split, result.subset)
        if not np.array_equal(judged.rows.labels, result.labels):
            raise DataError(f"{judged.name!r} holds other rows than were judged")
        return class_examples(judged, result.models[-1].predictions, trained, takers)
    except LtstoreError as err:
        _log.warning("the report shows no images: %s", err)
        return {}


def _synthetic_counts(model: LinearModel) -> IntArray:
    counts = model.record.get("synthetic_counts") or np.zeros(len(model.class_names))
    return np.asarray(counts, np.int64)


def _background(
    model: LinearModel, store: Store, targets: IntArray, takers: Mapping[int, list[int]]
) -> _Background:
    """Return what is known of the rows the model was trained on; a part that cannot be had is left out, and logged."""
    made_from, settings = model.record.get("made_from", {}), model.record.get("settings", {})
    try:
        selection = select(store, made_from.get("split", ""), made_from.get("subset"))
        if selection.rows.digest != made_from.get("rows"):
            raise DataError(f"{selection.name!r} holds other rows than the model was trained on")
        means = selection.moments().means
    except LtstoreError as err:
        _log.warning("the report shows no training rows: %s", err)
        return _Background()
    card = kept_card(selection)
    seed = model.record.get("seed") or 0
    try:
        donors = selection.donors(settings.get("donors_by", "means"))
        sampler = _sampler(selection, settings)
        maps = _maps(selection, donors, sampler, targets, takers, seed)
    except LtstoreError as err:
        _log.warning("the report shows no donors and no maps of rows: %s", err)
        return _Background(means=means, selection=selection, card=card)
    try:
        quality = _quality(selection, settings, targets, seed)
    except LtstoreError as err:
        _log.warning("the report shows no quality of synthetic rows: %s", err)
        quality = None
    return _Background(
        means=means, selection=selection, donors=donors, row_maps=maps, quality=quality, card=card
    )


def _uses(model: LinearModel, card: Card | None) -> bool:
    """Whether the model is what the card chose."""
    if card is None:
        return False
    return bool(model.record.get("settings", {}).get("auto") == card.choice.candidate.to_json())


def _with_sampler(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of the model, or of the first member of a blend that was trained with synthetic rows."""
    members = settings.get("members", [])
    return next((each for each in members if each.get("sampler", "none") != "none"), settings)


def _quality(selection: Selection, settings: Mapping[str, Any], targets: IntArray, seed: int) -> Quality | None:
    """Return what is kept, or else measured now, of the synthetic rows; None where there are none."""
    if not targets.any():
        return None
    how: Mapping[str, Any] = _with_sampler(settings)
    if settings.get("synthetic"):
        how = selection.store.synthetic(settings["synthetic"]).settings
        seed = int(how.get("seed", 0))
    else:
        members = [each for each in settings.get("members", [how]) if each.get("sampler", "none") != "none"]
        targets = targets // max(len(members), 1)
    name, resolved, donors_by = how["sampler"], how["sampler_settings"], how.get("donors_by", "means")
    options = how.get("sampler_options", resolved)
    if "accept" in resolved:
        options = {**options, "accept": resolved["accept"]}
    return measure_sampler(
        selection,
        fit_sampler(selection, name, resolved, donors_by=donors_by),
        targets,
        unfitted=partial(build_sampler, selection.store, name, options),
        donors_by=donors_by,
        seed=seed,
    ).quality


def _sampler(selection: Selection, settings: Mapping[str, Any]) -> Sampler | None:
    """Return the sampler the model, or a member of it, was trained with, None where there was none."""
    if settings.get("synthetic"):
        stored = StoredSampler(selection, settings["synthetic"])
        if stored.digest != settings.get("synthetic_digest"):
            raise DataError(f"the synthetic rows {settings['synthetic']!r} were made anew since")
        return stored
    how = _with_sampler(settings)
    name = how.get("sampler", "none")
    if name in ("none", "auto"):
        return None
    return fit_sampler(selection, name, how["sampler_settings"], donors_by=how.get("donors_by", "means"))


def _maps(
    selection: Selection,
    donors: Donors,
    sampler: Sampler | None,
    targets: IntArray,
    takers: Mapping[int, list[int]],
    seed: int,
) -> dict[int, RowMap]:
    """Lay out the rows of each class beside those of the classes that take its test rows and of its first donors."""
    labels = selection.rows.labels
    maps = {}
    for c, others in takers.items():
        shown = np.unique([c, *others[:MAP_OTHERS], *donors.class_ids[c, :MAP_OTHERS]])
        shown = shown[shown >= 0]
        places = np.flatnonzero(np.isin(labels, shown))
        if len(np.unique(labels[places])) < 2:
            continue
        made = (
            sampler.sample(c, 0, min(int(targets[c]), SYNTHETIC_ROWS), seed=seed)
            if sampler and targets[c]
            else None
        )
        maps[c] = row_map(
            selection.rows.take(places),
            labels[places],
            None if made is None else made.X,
            None if made is None else made.labels,
            shown,
            max_points=MAP_ROWS,
        )
    return maps


def _without_synthesis(chosen: JudgedModel, result: EvaluateResult) -> str | None:
    """Name the model that was trained as the chosen one but without its synthetic rows, None if there is none."""
    if not _synthetic_counts(chosen.model).any():
        return None
    for judged in reversed(result.models):
        same_rows = judged.model.record.get("made_from") == chosen.model.record.get("made_from")
        same = _trained_as(judged.model) == _trained_as(chosen.model)
        if same_rows and same and not _synthetic_counts(judged.model).any():
            return judged.name
    return None


def _trained_as(model: LinearModel) -> list[Any]:
    settings = model.record.get("settings", {})
    return [settings.get(key) for key in ("head", "loss", "tau", "penalty", "l2")]


def _origin(made_from: Mapping[str, Any]) -> str:
    split, subset = made_from.get("split"), made_from.get("subset")
    if not split:
        return "not from a store"
    return split if subset is None else f"{split}, subset {subset}"


def _note(model: LinearModel) -> str:
    settings = model.record.get("settings", {})
    head = settings.get("head")
    if head == ZERO_SHOT:
        return "text of the class names, no training"
    if head in CLOSED_FORMS:
        return "closed form, no training"
    if head == "ensemble":
        mixed = settings["ensemble"]
        return f"mixture of {' and '.join(mixed['members'])}, {100 * mixed['share']:.0f} % of the second"
    words = [f"logit-adjusted, tau {settings['tau']:g}" if settings.get("tau") else "plain cross entropy"]
    if settings.get("auto_name"):
        return f"chosen by a backtest: {settings['auto_name']}"
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
