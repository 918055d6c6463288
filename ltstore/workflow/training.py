"""Train a head on a selection, with or without synthetic rows, and write the model directory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.backtest import BLEND_ROWS, Candidate, Member, blend_heads
from ltstore.errors import ConfigError, DataError, StoreExistsError
from ltstore.linear import LinearModel, TrainResult, TrainSettings, train_closed_form, train_linear
from ltstore.linear.model import check_replaceable
from ltstore.linear.training import CLOSED_FORMS, lean
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.stream import TrainingStream
from ltstore.types import IntArray, Progress, Sampler, no_progress
from ltstore.workflow.backtesting import backtest
from ltstore.workflow.sampling import StoredSampler, fit_sampler, plan_targets
from ltstore.workflow.selection import Selection, select

_log = logging.getLogger(__name__)

HEADS = ("linear", *CLOSED_FORMS)


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
        "tolerance", "max_passes", "rounding" or "closed form", see `ltstore.linear.TrainResult`.
    history : list of dict
        One entry per pass; a gap that was not estimated is None.
    """

    model: LinearModel = field(repr=False)
    targets: IntArray = field(repr=False)
    seconds: float
    n_passes: int
    stopped: str
    history: list[dict[str, float | None]] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: settings and figures, not the weights."""
        return {
            "settings": self.model.record["settings"],
            "n_real": int(self.model.class_counts.sum()),
            "n_synthetic": int(self.targets.sum()),
            "n_passes": self.n_passes,
            "stopped": self.stopped,
            "seconds": self.seconds,
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
    settings: TrainSettings | None = None,
    out: Path | str | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> TrainOutcome:
    """Train a linear head on the rows of a selection.

    Parameters
    ----------
    store : path, Store or Selection
    split, subset : str
        Used where `store` is no Selection.
    head : {"linear", "ncm", "gda", "ridge"}
        A softmax head by the streaming solver, or a closed form: nearest class mean, Gaussian discriminant, ridge.
    sampler : str
        "none", "auto" (what `backtest` of these rows chooses; settings then give penalty, solver and seed), or a
        sampler whose rows fill every class up to the largest one (or `per_class` rows each).
    sampler_settings, per_class, max_ratio, donors_by
        Of the sampler, as in `ltstore.workflow.sample`; refused without one.
    synthetic : str, optional
        Use this materialised set (see `ltstore.workflow.sample`) in place of a sampler.
    settings : TrainSettings, optional
        Loss, penalty, solver of the softmax head; refused with a closed form.
    out : path, optional
        Model directory to write.
    force : bool
        Replace the model that is there; nothing but a model is ever replaced.

    Raises
    ------
    ConfigError, DataError, StoreNotFoundError, StoreExistsError, IncompleteStoreError, StoreWriteError
    """
    _check_settings(head, sampler, sampler_settings, synthetic, per_class, max_ratio, donors_by, settings)
    if out is not None:
        check_replaceable(Path(out).absolute())
        if Path(out).exists() and not force:
            raise StoreExistsError(
                f"{out} exists: choose another place for the model, or replace it by force (--force)"
            )
    selection = store if isinstance(store, Selection) else select(store, split, subset)
    selection.require_labels()
    started = time.perf_counter()
    fit = partial(_fit, selection, donors_by=donors_by, progress=progress)
    if sampler == "auto":
        result, targets, source = _fit_chosen(selection, settings or TrainSettings(), fit)
    else:
        result, targets, source = fit(
            head=head,
            sampler=sampler,
            sampler_settings=sampler_settings,
            synthetic=synthetic,
            per_class=per_class,
            max_ratio=max_ratio,
            settings=settings or TrainSettings(),
        )
    record = dict(result.model.record)
    record["settings"] = {**record["settings"], **source}
    record["synthetic_counts"] = targets.tolist()
    record["train_seconds"] = time.perf_counter() - started
    outcome = TrainOutcome(
        model=replace(result.model, record=record),
        targets=targets,
        seconds=record["train_seconds"],
        n_passes=result.n_passes,
        stopped=result.stopped,
        history=[
            {name: value if math.isfinite(value) else None for name, value in asdict(step).items()}
            for step in result.history
        ],
    )
    if out is not None:
        outcome.model.save(out)
    return outcome


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
    progress: Progress = no_progress,
) -> tuple[TrainResult, IntArray, dict[str, Any]]:
    """Return a head, the (C,) synthetic rows it was trained with, and what the record says of them."""
    common: dict[str, Any] = {
        "encoder": selection.rows.encoder,
        "encoder_spec": str(selection.store.split(selection.split).settings.get("encoder_spec", "")),
        "normalized": selection.rows.normalized,
        "made_from": selection.made_from | {"store": str(selection.store.location)},
        "class_counts": selection.counts,
    }
    moments = selection.moments()
    targets = np.zeros(len(selection.counts), np.int64)
    source: dict[str, Any] = {"sampler": "none"}
    if head != "linear":
        names = selection.store.class_names
        return (
            train_closed_form(head, moments, class_names=names, rows=selection.rows, **common),
            targets,
            source,
        )
    used: Sampler | None = None
    if synthetic is not None:
        stored = StoredSampler(selection, synthetic)
        used, targets = stored, stored.targets
        source |= {"synthetic": synthetic, "synthetic_digest": stored.digest}
    elif sampler != "none":
        used = fit_sampler(selection, sampler, sampler_settings, donors_by=donors_by)
        targets = plan_targets(selection, per_class, max_ratio)
        source |= {"donors_by": donors_by}
    if used is not None:
        source |= {"sampler": used.name, "sampler_settings": dict(used.settings)}
    stream = TrainingStream(selection.rows, sampler=used, targets=targets, seed=settings.seed)
    return train_linear(stream, settings, moments, progress=progress, **common), targets, source


def _fit_chosen(
    selection: Selection,
    settings: TrainSettings,
    fit: Callable[..., tuple[TrainResult, IntArray, dict[str, Any]]],
) -> tuple[TrainResult, IntArray, dict[str, Any]]:
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
    results = [result for result, _, _ in fitted]
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
        "members": [result.model.record["settings"] | source for result, _, source in fitted],
    }
    model = replace(last.model, weight=weight.astype(np.float32), bias=bias.astype(np.float32), record=record)
    passes = tuple(step for result in results for step in result.history)
    stopped = next((result.stopped for result in results if not result.converged), last.stopped)
    blended = replace(last, model=model, history=passes, n_passes=len(passes), stopped=stopped)
    return (
        blended,
        sum((targets for _, targets, _ in fitted), np.zeros_like(selection.counts)),
        {"sampler": "auto"},
    )


def _check_settings(
    head: str,
    sampler: str,
    sampler_settings: Mapping[str, Any] | None,
    synthetic: str | None,
    per_class: int | None,
    max_ratio: float | None,
    donors_by: str,
    settings: TrainSettings | None,
) -> None:
    """Raise ConfigError for settings that contradict each other or would do nothing."""
    if head not in HEADS:
        raise ConfigError(f"unknown head {head!r}; known: {', '.join(HEADS)}")
    if sampler != "none" and synthetic is not None:
        raise ConfigError("a sampler and a materialised synthetic set cannot both be used: choose one")
    if sampler == "auto" and (
        head != "linear" or sampler_settings or per_class is not None or max_ratio is not None
    ):
        raise ConfigError("sampler 'auto' chooses head, sampler and counts by a backtest: leave the others out")
    if head != "linear" and (sampler != "none" or synthetic is not None or settings is not None):
        raise ConfigError(
            f"head {head!r} is a closed form of the class moments: it takes no loss, penalty or solver settings and "
            "no synthetic rows"
        )
    given = {
        "sampler settings": sampler_settings,
        "per_class": per_class,
        "max_ratio": max_ratio,
        "donors": None if donors_by == "means" else donors_by,
    }
    useless = [name for name, value in given.items() if value]
    if sampler == "none" and useless:
        raise ConfigError(f"{', '.join(useless)} would do nothing without a sampler: name one, or leave it out")
