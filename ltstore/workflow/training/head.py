"""Train a head on a selection, with or without synthetic rows, and write the model directory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ltstore.engine import Engine, LocalEngine
from ltstore.errors import ConfigError, StoreExistsError
from ltstore.linear import Checkpointing, TrainSettings
from ltstore.linear.checkpoint import remove_checkpoint
from ltstore.linear.closed_form import CLOSED_FORMS
from ltstore.linear.device import check_shareable
from ltstore.linear.model import check_replaceable
from ltstore.linear.progress import OnPass, no_record
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.types import Progress, no_progress
from ltstore.workflow.selection import Selection, select
from ltstore.workflow.training.fitted import ZERO_SHOT, fit, fit_chosen
from ltstore.workflow.training.outcome import TrainOutcome
from ltstore.workflow.training.synthesis import Synthesis

UNTRAINED = (*CLOSED_FORMS, ZERO_SHOT)
HEADS = ("linear", "cosine", *UNTRAINED)


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
    refit: bool = False,
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
    head : {"linear", "cosine", "ncm", "gda", "ridge", "zero-shot"}
        A softmax head by a solver; a closed form: nearest class mean, Gaussian discriminant, ridge; or the text vectors
        of the class names (`ltstore.workflow.embed_class_names`), for which rows need no label.
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
        Rows that a softmax head is not trained on and judged on at every point (see `training.holdout`): a
        share of the selection, or the name of a subset or split. The model's class counts are the selection's all the
        same, so that groups of classes are those of other models of it.
    grid : mapping of str to values, optional
        Train a head for every combination of these settings, all in the same passes, and give back the one that is best
        on the holdout.
    refit : bool
        Put a holdout that is a share back when it has chosen, and train the head again from there on all rows
        (`ltstore.linear.refit_linear`). The score on the holdout stays that of the head before.
    checkpoint : Checkpointing, optional
        Put the run away now and then, and take up one that was. Removed when the model has been written to `out`. A
        refit is begun anew.
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
        As in `ltstore.linear.train_linear`; the passes of a refit are among those that are counted.
    on_pass : callable
        Called after every pass with its PassRecord, of a grid that of the first head still in training.

    Raises
    ------
    ConfigError, DataError, StoreNotFoundError, StoreExistsError, IncompleteStoreError, StoreWriteError, WorkerLostError
    """
    engine = _resolved_engine(engine, n_workers)
    synthesis = Synthesis(
        sampler=sampler,
        settings=sampler_settings,
        per_class=per_class,
        max_ratio=max_ratio,
        donors_by=donors_by,
        accept=accept,
        stored=synthetic,
    )
    _check_head(head, synthesis, settings)
    extras = {
        "row weights": row_weights,
        "holdout": holdout,
        "grid": grid,
        "refit": refit or None,
        "checkpoint": checkpoint,
    }
    _check_extras(head, sampler, extras)
    if head == "cosine":
        settings = replace(settings or TrainSettings(), head="cosine")
    if engine is not None and settings is not None:
        check_shareable(settings)
    if out is not None:
        check_out(out, force)
    selection = store if isinstance(store, Selection) else select(store, split, subset)
    if head != ZERO_SHOT:
        selection.require_labels()
    started = time.perf_counter()
    selection.check()
    chosen = settings or TrainSettings()
    how: dict[str, Any] = {"engine": engine, "progress": progress, "on_pass": on_pass}
    if sampler == "auto":
        fitted = fit_chosen(selection, chosen, donors_by=donors_by, **how)
    else:
        fitted = fit(
            selection,
            head=head,
            synthesis=synthesis,
            settings=chosen,
            row_weights=row_weights,
            holdout=holdout,
            grid=grid,
            refit=refit,
            checkpoint=checkpoint,
            **how,
        )
    result = fitted.result
    outcome = TrainOutcome(
        model=result.model,
        targets=fitted.targets,
        seconds=time.perf_counter() - started,
        n_passes=result.n_passes,
        stopped=result.stopped,
        history=[step.to_json() for step in result.history],
        kept_pass=result.kept_pass,
        holdout=result.holdout,
        rows_per_second=result.rows_per_second,
        data_share=result.data_share,
        share_of_peak=result.share_of_peak,
        peak=result.peak,
        trials=list(fitted.trials),
        refit=fitted.refit,
    )
    record = {
        **result.model.record,
        "settings": {**result.model.record["settings"], **fitted.source},
        "synthetic_counts": fitted.targets.tolist(),
        "train_seconds": outcome.seconds,
        "train_speed": outcome.speed,
    }
    outcome = replace(outcome, model=replace(result.model, record=record))
    if out is not None:
        outcome.model.save(out)
        if checkpoint is not None:
            remove_checkpoint(checkpoint)
    return outcome


def check_out(out: Path | str, force: bool) -> None:
    """Raise StoreExistsError unless a model can be written: by force in the place of another, and of nothing else."""
    check_replaceable(Path(out).absolute())
    if Path(out).exists() and not force:
        raise StoreExistsError(
            f"{out} exists: choose another place for the model, or replace it by force (--force)"
        )


def _resolved_engine(engine: Engine | None, n_workers: int | str) -> Engine | None:
    """Return the engine, or one of threads for more than one worker; ConfigError where both are given."""
    if engine is not None:
        if n_workers != 1:
            raise ConfigError("an engine has its own number of workers: leave n_workers out")
        return engine
    local = LocalEngine(n_workers)
    return None if local.n_workers == 1 else local


def _check_head(head: str, synthesis: Synthesis, settings: TrainSettings | None) -> None:
    """Raise ConfigError for settings that contradict the head or would do nothing."""
    if head not in HEADS:
        raise ConfigError(f"unknown head {head!r}; known: {', '.join(HEADS)}")
    if synthesis.sampler == "auto" and head != "linear":
        raise ConfigError("sampler 'auto' chooses head, sampler and counts by a backtest: leave the others out")
    if head in UNTRAINED and (synthesis.asked_for or settings is not None):
        of = "text vectors" if head == ZERO_SHOT else "the class moments"
        raise ConfigError(
            f"head {head!r} is a closed form of {of}: it takes no loss, penalty or solver settings and no "
            "synthetic rows"
        )


def _check_extras(head: str, sampler: str, extras: Mapping[str, Any]) -> None:
    """Raise ConfigError for what a closed form or `auto` does not use, and a grid without what it is judged on."""
    given = [name for name, value in extras.items() if value is not None]
    if given and (head in UNTRAINED or sampler == "auto"):
        what = (
            f"head {head!r} is a closed form" if head in UNTRAINED else "sampler 'auto' is chosen by a backtest"
        )
        raise ConfigError(f"{what}: {', '.join(given)} would do nothing, leave it out")
    if extras["grid"] is not None and extras["holdout"] is None:
        raise ConfigError("a grid needs a holdout to choose on, e.g. a share of the rows (--holdout 0.2)")
    if extras["refit"] and not isinstance(extras["holdout"], float):
        raise ConfigError(
            "refit puts back rows that were held out, and needs a holdout that is a share of them (--holdout 0.2)"
        )
