"""Train a head on a selection, with or without synthetic rows, and write the model directory."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltstore.backtest import BLEND_ROWS, Candidate, Member, blend_heads
from ltstore.engine import Engine, LocalEngine
from ltstore.errors import ConfigError, DataError, StoreExistsError
from ltstore.linear import (
    Checkpointing,
    HoldoutScore,
    LinearModel,
    TrainResult,
    TrainSettings,
    best_of,
    expand_grid,
    train_closed_form,
    train_grid,
    train_linear,
)
from ltstore.linear.checkpoint import remove_checkpoint
from ltstore.linear.model import check_replaceable
from ltstore.linear.shared_passes import check_shareable
from ltstore.linear.training import CLOSED_FORMS, OnPass, lean, no_record
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.stream import TrainingStream
from ltstore.stream.loader import check_weights
from ltstore.types import UNLABELLED, IntArray, Progress, Sampler, no_progress
from ltstore.workflow.backtesting import backtest
from ltstore.workflow.holdout import divide
from ltstore.workflow.sampling import StoredSampler, fit_sampler, plan_targets, rates_of
from ltstore.workflow.selection import Selection, select

_log = logging.getLogger(__name__)

HEADS = ("linear", "cosine", *CLOSED_FORMS)


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """A trained model and what it took.

    Attributes
    ----------
    model : LinearModel
    targets : (C,) int64
        Synthetic rows of each class.
    seconds : float
        Everything counted, from opened store to model.
    n_passes : int
        Passes over the rows; 0 for a closed form.
    stopped : str
        "tolerance", "max_passes", "rounding", "epochs" or "closed form", see `ltstore.linear.TrainResult`.
    history : list of dict
        One entry per pass (`ltstore.linear.PassRecord`); what was not measured is None.
    kept_pass : int
        The pass, from 1, that the model is from; 0 for a closed form and for a blend.
    holdout : HoldoutScore or None
        Of the model.
    rows_per_second : float
        Of all passes; 0 for a closed form.
    data_share : float
        Share of the passes' time that was spent waiting for rows.
    trials : list of dict
        Of a grid: what each head was trained with, how it did on the holdout, and which was chosen.
    """

    model: LinearModel = field(repr=False)
    targets: IntArray = field(repr=False)
    seconds: float
    n_passes: int
    stopped: str
    history: list[dict[str, float | None]] = field(repr=False)
    kept_pass: int = 0
    holdout: HoldoutScore | None = None
    rows_per_second: float = 0.0
    data_share: float = 0.0
    trials: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def n_real(self) -> int:
        """Real rows that were trained on, without the holdout."""
        return int(self.model.record["settings"].get("n_real", self.model.class_counts.sum()))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: settings and figures, not the weights."""
        return {
            "settings": self.model.record["settings"],
            "n_real": self.n_real,
            "n_synthetic": int(self.targets.sum()),
            "n_passes": self.n_passes,
            "kept_pass": self.kept_pass,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "rows_per_second": self.rows_per_second,
            "data_share": self.data_share,
            "holdout": None if self.holdout is None else self.holdout._asdict(),
            "grid": self.trials,
            "history": self.history,
        }


def train(
    store: Place | Store | Selection,
    *,
    split: str = "train",
    subset: str | None = None,
    head: str = "linear",
    sampler: str = "none",
    sampler_settings: Mapping[str, Any] | None = None,
    synthetic: str | None = None,
    per_class: int | None = None,
    max_ratio: float | None = None,
    donors_by: str = "means",
    accept: str = "none",
    settings: TrainSettings | None = None,
    row_weights: ArrayLike | None = None,
    holdout: float | str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    checkpoint: Checkpointing | None = None,
    engine: Engine | None = None,
    n_workers: int | str = 1,
    out: Path | str | None = None,
    force: bool = False,
    progress: Progress = no_progress,
    on_pass: OnPass = no_record,
) -> TrainOutcome:
    """Train a linear head on the rows of a selection.

    Parameters
    ----------
    store : path, Store or Selection
    split, subset : str
        Used where `store` is no Selection.
    head : {"linear", "cosine", "ncm", "gda", "ridge"}
        A softmax head by a solver, or a closed form: nearest class mean, Gaussian discriminant, ridge.
    sampler : str
        "none", "auto" (what `backtest` of these rows chooses; settings then give penalty, solver and seed), or a
        sampler whose rows fill every class up to the largest one (or `per_class` rows each).
    sampler_settings, per_class, max_ratio, donors_by, accept
        Of the sampler, as in `ltstore.workflow.sample`; refused without one.
    synthetic : str, optional
        Use this materialised set (see `ltstore.workflow.sample`) in place of a sampler.
    settings : TrainSettings, optional
        Loss, penalty, solver of the softmax head; refused with a closed form.
    row_weights : (N,) floats, optional
        Weight of each row of the selection in the loss of a softmax head, at least 0.
    holdout : float or str, optional
        Rows that a softmax head is not trained on and judged on at every point (`ltstore.workflow.holdout.divide`): a
        share of the selection, or the name of a subset or split. The model's class counts are the selection's all the
        same, so that groups of classes are those of other models of it.
    grid : mapping of str to values, optional
        Train a head for every combination of these settings, all in the same passes, and give back the one that is best
        on the holdout.
    checkpoint : Checkpointing, optional
        Put the run away now and then, and take up one that was. Removed when the model has been written to `out`.
    engine : Engine, optional
        Workers that share the passes of training and of the class moments, e.g. on a Ray cluster. A closed form that is
        calibrated, a holdout and the backtest of "auto" are looked at without them.
    n_workers : int or "auto"
        Threads to do so where there is no engine: 1 is none, "auto" one a core.
    out : path, optional
        Model directory to write.
    force : bool
        Replace the model that is there; nothing but a model is ever replaced.
    progress : Progress
        As in `ltstore.linear.train_linear`.
    on_pass : callable
        Called after every pass with its PassRecord; not for a grid.

    Raises
    ------
    ConfigError, DataError, StoreNotFoundError, StoreExistsError, IncompleteStoreError, StoreWriteError, WorkerLostError
    """
    engine = _resolved_engine(engine, n_workers)
    if head == "cosine":
        settings = replace(settings or TrainSettings(), head="cosine")
    extras = {"row weights": row_weights, "holdout": holdout, "grid": grid, "checkpoint": checkpoint}
    _check_settings(
        head, sampler, sampler_settings, synthetic, per_class, max_ratio, donors_by, accept, settings
    )
    _check_extras(head, sampler, extras)
    if engine is not None and settings is not None:
        check_shareable(settings)
    if out is not None:
        check_replaceable(Path(out).absolute())
        if Path(out).exists() and not force:
            raise StoreExistsError(
                f"{out} exists: choose another place for the model, or replace it by force (--force)"
            )
    selection = store if isinstance(store, Selection) else select(store, split, subset)
    selection.require_labels()
    started = time.perf_counter()
    chosen = settings or TrainSettings()
    fit = partial(_fit, selection, donors_by=donors_by, engine=engine, progress=progress, on_pass=on_pass)
    if sampler == "auto":
        fitted = _fit_chosen(selection, chosen, fit)
    else:
        fitted = fit(
            head=head,
            sampler=sampler,
            sampler_settings=sampler_settings,
            synthetic=synthetic,
            per_class=per_class,
            max_ratio=max_ratio,
            accept=accept,
            settings=chosen,
            row_weights=row_weights,
            holdout=holdout,
            grid=grid,
            checkpoint=checkpoint,
        )
    result = fitted.result
    record = dict(result.model.record)
    record["settings"] = {**record["settings"], **fitted.source}
    record["synthetic_counts"] = fitted.targets.tolist()
    record["train_seconds"] = time.perf_counter() - started
    outcome = TrainOutcome(
        model=replace(result.model, record=record),
        targets=fitted.targets,
        seconds=record["train_seconds"],
        n_passes=result.n_passes,
        stopped=result.stopped,
        history=[step.to_json() for step in result.history],
        kept_pass=result.kept_pass,
        holdout=result.holdout,
        rows_per_second=result.rows_per_second,
        data_share=result.data_share,
        trials=fitted.trials,
    )
    if out is not None:
        outcome.model.save(out)
        if checkpoint is not None:
            remove_checkpoint(checkpoint)
    return outcome


class _Fitted(NamedTuple):
    """A head, the (C,) synthetic rows it was trained with, what the record says of them, and a grid's table."""

    result: TrainResult
    targets: IntArray
    source: dict[str, Any]
    trials: list[dict[str, Any]]


def _fit(
    selection: Selection,
    *,
    head: str,
    sampler: str,
    settings: TrainSettings,
    donors_by: str,
    sampler_settings: Mapping[str, Any] | None = None,
    synthetic: str | None = None,
    per_class: int | None = None,
    max_ratio: float | None = None,
    accept: str = "none",
    row_weights: ArrayLike | None = None,
    holdout: float | str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    checkpoint: Checkpointing | None = None,
    engine: Engine | None = None,
    progress: Progress = no_progress,
    on_pass: OnPass = no_record,
) -> _Fitted:
    """Train a head, or the heads of a grid, on a selection less its holdout."""
    common: dict[str, Any] = {
        "encoder": selection.rows.encoder,
        "encoder_spec": str(selection.store.split(selection.split).settings.get("encoder_spec", "")),
        "normalized": selection.rows.normalized,
        "made_from": selection.made_from | {"store": str(selection.store.location)},
        "class_counts": selection.counts,
    }
    targets = np.zeros(len(selection.counts), np.int64)
    source: dict[str, Any] = {"sampler": "none"}
    if head in CLOSED_FORMS:
        names, moments = selection.store.class_names, selection.moments(engine=engine)
        closed = train_closed_form(head, moments, class_names=names, rows=selection.rows, **common)
        return _Fitted(closed, targets, source, [])
    weights = None if row_weights is None else np.asarray(row_weights, np.float32)
    if weights is not None:
        check_weights(weights, selection.rows)
        source["row_weights"] = "sha256:" + hashlib.sha256(weights.tobytes()).hexdigest()
    training, held, positions = divide(selection, holdout, settings.seed)
    if held is not None:
        known = int(np.count_nonzero(held.labels != UNLABELLED))
        source["holdout_rows"] = {"from": holdout, "rows": held.digest, "n_rows": known}
    if weights is not None and positions is not None:
        weights = weights[positions]
    moments = training.moments(engine=engine)
    used: Sampler | None = None
    if synthetic is not None:
        stored = StoredSampler(training, synthetic)
        used, targets = stored, stored.targets
        source |= {"synthetic": synthetic, "synthetic_digest": stored.digest}
    elif sampler != "none":
        fitted = fit_sampler(training, sampler, sampler_settings, donors_by=donors_by, accept=accept)
        used, targets = fitted, plan_targets(training, per_class, max_ratio)
        source |= {"donors_by": donors_by, "sampler_options": dict(sampler_settings or {})}
        rates = rates_of(fitted, training, targets, settings.seed)
        if rates is not None:
            source |= {"acceptance": rates.to_json()["groups"]}
    if used is not None:
        source |= {"sampler": used.name, "sampler_settings": dict(used.settings)}
    stream = TrainingStream(training.rows, sampler=used, targets=targets, weights=weights, seed=settings.seed)
    how = {**common, "holdout": held, "engine": engine, "progress": progress}
    if grid is None:
        result = train_linear(stream, settings, moments, checkpoint=checkpoint, on_pass=on_pass, **how)
        return _Fitted(result, targets, source, [])
    results = train_grid(stream, expand_grid(settings, grid), moments, **how)
    best = best_of(results)
    trials = [_trial(result, grid, number == best) for number, result in enumerate(results)]
    source["grid"] = {"axes": {key: list(values) for key, values in grid.items()}, "trials": trials}
    return _Fitted(results[best], targets, source, trials)


def _trial(result: TrainResult, grid: Mapping[str, Sequence[Any]], chosen: bool) -> dict[str, Any]:
    """Return the row of a grid's table."""
    assert result.holdout is not None
    settings = result.model.record["settings"]
    return {
        **{key: settings[key] for key in grid},
        "holdout_balanced": result.holdout.balanced,
        "holdout_accuracy": result.holdout.accuracy,
        "n_passes": result.n_passes,
        "kept_pass": result.kept_pass,
        "stopped": result.stopped,
        "chosen": chosen,
    }


def _fit_chosen(
    selection: Selection,
    settings: TrainSettings,
    fit: Callable[..., _Fitted],
) -> _Fitted:
    """Fit what the backtest of these rows chooses: the blend of its members, leaning as far as it says."""
    try:
        card = backtest(selection, seed=settings.seed).card
        choice, reason = card.choice.candidate, card.reason
    except DataError as err:
        choice, reason = Candidate(members=(Member(),)), f"no backtest was possible ({err})"
    _log.warning("auto: %s, %s", choice.name, reason)
    fitted = [
        fit(
            head=member.head,
            sampler=member.sampler,
            sampler_settings=member.sampler_settings,
            max_ratio=member.max_ratio,
            settings=replace(settings, loss=member.loss, implicit=member.implicit or settings.implicit),
        )
        for member in choice.members
    ]
    results = [one.result for one in fitted]
    n = selection.rows.n_samples
    sample = selection.rows.take(np.unique(np.linspace(0, n - 1, BLEND_ROWS).astype(np.int64)))
    weight, bias = blend_heads([result.model.arrays for result in results], sample)
    bias = bias - lean(selection.counts, choice.posthoc_tau)
    last = results[-1]
    record = dict(last.model.record)
    record["settings"] = {
        "head": "linear",
        "auto": choice.to_json(),
        "auto_name": choice.name,
        "auto_reason": reason,
        "posthoc_tau": choice.posthoc_tau,
        "members": [one.result.model.record["settings"] | one.source for one in fitted],
    }
    model = replace(last.model, weight=weight.astype(np.float32), bias=bias.astype(np.float32), record=record)
    passes = tuple(step for result in results for step in result.history)
    stopped = next((result.stopped for result in results if not result.converged), last.stopped)
    blended = replace(last, model=model, history=passes, n_passes=len(passes), stopped=stopped, kept_pass=0)
    targets = sum((one.targets for one in fitted), np.zeros_like(selection.counts))
    return _Fitted(blended, targets, {"sampler": "auto"}, [])


def _resolved_engine(engine: Engine | None, n_workers: int | str) -> Engine | None:
    """Return the engine, or one of threads for more than one worker; ConfigError where both are given."""
    if engine is not None:
        if n_workers != 1:
            raise ConfigError("an engine has its own number of workers: leave n_workers out")
        return engine
    local = LocalEngine(n_workers)
    return None if local.n_workers == 1 else local


def _check_settings(
    head: str,
    sampler: str,
    sampler_settings: Mapping[str, Any] | None,
    synthetic: str | None,
    per_class: int | None,
    max_ratio: float | None,
    donors_by: str,
    accept: str,
    settings: TrainSettings | None,
) -> None:
    """Raise ConfigError for settings that contradict each other or would do nothing."""
    if head not in HEADS:
        raise ConfigError(f"unknown head {head!r}; known: {', '.join(HEADS)}")
    if sampler != "none" and synthetic is not None:
        raise ConfigError("a sampler and a materialised synthetic set cannot both be used: choose one")
    if sampler == "auto" and (
        head != "linear"
        or sampler_settings
        or per_class is not None
        or max_ratio is not None
        or accept != "none"
    ):
        raise ConfigError("sampler 'auto' chooses head, sampler and counts by a backtest: leave the others out")
    if head in CLOSED_FORMS and (sampler != "none" or synthetic is not None or settings is not None):
        raise ConfigError(
            f"head {head!r} is a closed form of the class moments: it takes no loss, penalty or solver settings and "
            "no synthetic rows"
        )
    given = {
        "sampler settings": sampler_settings,
        "per_class": per_class,
        "max_ratio": max_ratio,
        "donors": None if donors_by == "means" else donors_by,
        "accept": None if accept == "none" else accept,
    }
    useless = [name for name, value in given.items() if value]
    if sampler == "none" and useless:
        raise ConfigError(f"{', '.join(useless)} would do nothing without a sampler: name one, or leave it out")


def _check_extras(head: str, sampler: str, extras: Mapping[str, Any]) -> None:
    """Raise ConfigError for what a closed form or `auto` does not use, and a grid without what it is judged on."""
    given = [name for name, value in extras.items() if value is not None]
    if given and (head in CLOSED_FORMS or sampler == "auto"):
        what = (
            f"head {head!r} is a closed form"
            if head in CLOSED_FORMS
            else "sampler 'auto' is chosen by a backtest"
        )
        raise ConfigError(f"{what}: {', '.join(given)} would do nothing, leave it out")
    if extras["grid"] is not None and extras["holdout"] is None:
        raise ConfigError("a grid needs a holdout to choose on, e.g. a share of the rows (--holdout 0.2)")
    if extras["grid"] is not None and extras["checkpoint"] is not None:
        raise ConfigError("a grid is not put away in the middle: leave the checkpoint out")
