"""A head fitted to a selection: one, the best of a grid, or the blend that a backtest chooses."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ltstore.backtest import BLEND_ROWS, Candidate, Member, blend_heads
from ltstore.engine import Engine
from ltstore.errors import DataError
from ltstore.kernels.peak import product_rate
from ltstore.linear import (
    Checkpointing,
    Origin,
    TrainResult,
    TrainSettings,
    best_of,
    expand_grid,
    refit_linear,
    train_closed_form,
    train_grid,
    train_linear,
)
from ltstore.linear.closed_form import CLOSED_FORMS
from ltstore.linear.problem import lean
from ltstore.linear.progress import OnPass, no_record
from ltstore.stream import TrainingStream
from ltstore.stream.loader import check_weights
from ltstore.types import UNLABELLED, FloatArray, IntArray, Progress, no_progress
from ltstore.workflow.backtesting import backtest
from ltstore.workflow.class_text import class_text
from ltstore.workflow.selection import Selection
from ltstore.workflow.training.holdout import divide
from ltstore.workflow.training.synthesis import Supply, Synthesis

_log = logging.getLogger(__name__)


ZERO_SHOT = "zero-shot"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A head and how it came about.

    Attributes
    ----------
    result : TrainResult
        With the model of the last fit.
    targets : (C,) int64
        Synthetic rows it was trained with.
    source : dict
        What the record says of rows and samplers.
    trials : list of dict
        A grid's table.
    refit : dict, optional
        How the fit on all rows went.
    """

    result: TrainResult
    targets: IntArray
    source: dict[str, Any]
    trials: Sequence[dict[str, Any]] = ()
    refit: dict[str, Any] | None = None


def fit(
    selection: Selection,
    *,
    head: str,
    synthesis: Synthesis,
    settings: TrainSettings,
    row_weights: ArrayLike | None = None,
    holdout: float | str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    refit: bool = False,
    checkpoint: Checkpointing | None = None,
    engine: Engine | None = None,
    progress: Progress = no_progress,
    on_pass: OnPass = no_record,
) -> Fitted:
    """Train a head, or those of a grid, on a selection less its holdout, and perhaps the best again on all of it."""
    origin = Origin(
        encoder=selection.rows.encoder,
        encoder_spec=str(selection.store.split(selection.split).settings.get("encoder_spec", "")),
        normalized=selection.rows.normalized,
        made_from=selection.made_from | {"store": str(selection.store.location)},
        class_counts=selection.counts,
    )
    if head == ZERO_SHOT:
        return _zero_shot(selection, origin)
    if head in CLOSED_FORMS:
        names, moments = selection.store.class_names, selection.moments(engine=engine)
        closed = train_closed_form(head, moments, class_names=names, origin=origin, rows=selection.rows)
        supply = synthesis.supply(selection, settings.seed)
        return Fitted(result=closed, targets=supply.targets, source=supply.source)
    weights = None if row_weights is None else np.asarray(row_weights, np.float32)
    source: dict[str, Any] = {}
    if weights is not None:
        check_weights(weights, selection.rows)
        source["row_weights"] = "sha256:" + hashlib.sha256(weights.tobytes()).hexdigest()
    training, held, positions = divide(selection, holdout, settings.seed)
    if held is not None:
        known = int(np.count_nonzero(held.labels != UNLABELLED))
        source["holdout_rows"] = {"from": holdout, "rows": held.digest, "n_rows": known}
    how: dict[str, Any] = {
        "origin": origin,
        "engine": engine,
        "peak": product_rate,
        "progress": progress,
        "on_pass": on_pass,
    }
    supply = synthesis.supply(training, settings.seed)
    stream = _stream(
        training, supply, weights if weights is None or positions is None else weights[positions], settings.seed
    )
    judged = {**how, "holdout": held, "checkpoint": checkpoint}
    trials: list[dict[str, Any]] = []
    if grid is None:
        result = train_linear(stream, settings, training.moments(engine=engine), **judged)
    else:
        heads = expand_grid(settings, grid)
        results = train_grid(stream, heads, training.moments(engine=engine), **judged)
        best = best_of(results)
        result, settings = results[best], heads[best]
        trials = [_trial(one, grid, number == best) for number, one in enumerate(results)]
        source["grid"] = {"axes": {key: list(values) for key, values in grid.items()}, "trials": trials}
    if not refit:
        return Fitted(result=result, targets=supply.targets, source=supply.source | source, trials=trials)
    supply = synthesis.supply(selection, settings.seed)
    stream = _stream(selection, supply, weights, settings.seed)
    again = refit_linear(stream, settings, selection.moments(engine=engine), result, **how)
    return Fitted(
        result=_refitted(result, again),
        targets=supply.targets,
        source=supply.source | source,
        trials=trials,
        refit=_refit_facts(again),
    )


def _zero_shot(selection: Selection, origin: Origin) -> Fitted:
    """Return the head of the store's class text: logits s cos(x, t_c), s the logit scale of the model.

    References
    ----------
    Radford et al. (2021), "Learning transferable visual models from natural language supervision", ICML, section 3.1.
    """
    started = time.perf_counter()
    text = class_text(selection.store)
    made = text.record["settings"]
    settings = {"head": ZERO_SHOT, "logit_scale": text.logit_scale, "templates": made["templates"]}
    model = replace(origin, made_from={**origin.made_from, "class_text": text.record["sha256"]}).model(
        text.logit_scale * text.vectors,
        np.zeros(len(text.vectors)),
        text.class_names,
        selection.counts,
        settings=settings,
    )
    result = TrainResult(model, (), 0, time.perf_counter() - started, "closed form", 0.0)
    return Fitted(result=result, targets=np.zeros_like(selection.counts), source={"sampler": "none"})


def _stream(selection: Selection, supply: Supply, weights: FloatArray | None, seed: int) -> TrainingStream:
    return TrainingStream(
        selection.rows, sampler=supply.sampler, targets=supply.targets, weights=weights, seed=seed
    )


def _refit_facts(again: TrainResult) -> dict[str, Any]:
    last = again.history[-1]
    return {
        "n_real": again.model.record["settings"]["n_real"],
        "n_passes": again.n_passes,
        "stopped": again.stopped,
        "value": last.value,
        "loss": last.loss,
    }


def _refitted(chosen: TrainResult, again: TrainResult) -> TrainResult:
    """Return what was chosen, with the model of the refit, whose record tells of both."""
    rows = {key: again.model.record["settings"][key] for key in ("n_real", "n_synthetic", "n_unlabelled")}
    told = {**chosen.model.record["settings"], **rows, "refit": _refit_facts(again)}
    return replace(chosen, model=replace(again.model, record={**again.model.record, "settings": told}))


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


def fit_chosen(
    selection: Selection,
    settings: TrainSettings,
    *,
    donors_by: str = "means",
    **how: Any,
) -> Fitted:
    """Fit what the backtest of these rows chooses: the blend of its members, leaning as far as it says.

    Parameters
    ----------
    settings : TrainSettings
        Their penalty, solver and seed are those of every member.
    donors_by : str
        Of the members' samplers.
    **how
        Engine, progress and on_pass, as `fit` takes them.
    """
    search: dict[str, Any] = {}
    try:
        found = backtest(selection, seed=settings.seed)
        card, choice, reason = found.card, found.card.choice.candidate, found.card.reason
        search = {"n_trials": card.n_trials, "seconds": card.seconds, "reused": found.reused}
    except DataError as err:
        choice, reason = Candidate(members=(Member(),)), f"no backtest was possible ({err})"
    _log.warning("auto: %s, %s", choice.name, reason)
    told = {"auto_reason": reason, "auto_search": search}
    return fit_blend(selection, choice, settings, donors_by=donors_by, told=told, **how)


def fit_blend(
    selection: Selection,
    choice: Candidate,
    settings: TrainSettings,
    *,
    donors_by: str = "means",
    told: Mapping[str, Any] = MappingProxyType({}),
    **how: Any,
) -> Fitted:
    """Fit a candidate of the backtest; parameters as in `fit_chosen`, `told` is what the record says of the choice."""
    fitted = [
        fit(
            selection,
            head=member.head,
            synthesis=_synthesis(member, donors_by),
            **how,
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
    record = dict(last.model.record) | {"seed": settings.seed}
    record["settings"] = {
        "head": "linear",
        "auto": choice.to_json(),
        "auto_name": choice.name,
        "auto_settings": settings.to_mapping(),
        **told,
        "donors_by": donors_by,
        "posthoc_tau": choice.posthoc_tau,
        "members": [one.result.model.record["settings"] | one.source for one in fitted],
    }
    model = replace(last.model, weight=weight.astype(np.float32), bias=bias.astype(np.float32), record=record)
    passes = tuple(step for result in results for step in result.history)
    stopped = next((result.stopped for result in results if not result.converged), last.stopped)
    blended = replace(last, model=model, history=passes, n_passes=len(passes), stopped=stopped, kept_pass=0)
    targets = sum((one.targets for one in fitted), np.zeros_like(selection.counts))
    return Fitted(result=blended, targets=targets, source={"sampler": "auto"})


def _synthesis(member: Member, donors_by: str) -> Synthesis:
    if member.sampler == "none":
        return Synthesis()
    return Synthesis(
        sampler=member.sampler,
        settings=member.sampler_settings,
        max_ratio=member.max_ratio,
        donors_by=donors_by,
    )
