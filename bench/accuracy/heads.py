"""The heads of the table: each made from a store that holds the training rows and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy.problems import LabelledArrays, Problem
from bench.data import write_rows
from ltstore.backtest import Card
from ltstore.errors import DataError
from ltstore.linear import LinearModel
from ltstore.rows import ArrayRows
from ltstore.types import EncoderIdentity
from ltstore.workflow import Selection, backtest, select, train
from ltstore.workflow.reproduction import baselines as library
from ltstore.workflow.reproduction.baselines import Baseline

ALL_ROWS = "ce, all rows"
ZERO_SHOT = "zero-shot"
LEAN = "la, lean by backtest"
CLIP_SCALE = 100.0
"""CLIP's own factor on cosines: it changes the calibration of the zero-shot head, not its predictions."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A head and what it took.

    Attributes
    ----------
    model : LinearModel
    settings : dict
    seconds : dict of str to float
        "moments", "backtest" (where there was one), "train", and "total".
    budget : dict
        Of a search: trials and candidates; empty without one.
    card : dict or None
        What a backtest foresaw of the choice.
    """

    model: LinearModel
    settings: dict[str, Any]
    seconds: dict[str, float]
    budget: dict[str, int] = field(default_factory=dict)
    card: dict[str, Any] | None = None


class Workbench:
    """The store of one problem in a folder, and what the heads of it share.

    Parameters
    ----------
    problem : Problem
    folder : path
        Stores are made in it.
    """

    def __init__(self, problem: Problem, folder: Path) -> None:
        self.problem = problem
        self._folder = folder
        self.encoder = EncoderIdentity(
            encoder="import", model=problem.encoder, n_features=problem.train.X.shape[1]
        )
        self.class_names = tuple(f"class {c}" for c in range(problem.n_classes))

    @cached_property
    def selection(self) -> Selection:
        """The training rows."""
        return self._stored("train", self.problem.train)

    @cached_property
    def moments_seconds(self) -> float:
        """Seconds of the class moments, which are then kept beside the store."""
        started = time.perf_counter()
        self.selection.moments()
        return time.perf_counter() - started

    @cached_property
    def card(self) -> Card | None:
        """The card of the backtest; None where none is possible."""
        try:
            return backtest(self.selection, seed=self.problem.seed).card
        except DataError:
            return None

    @property
    def vectors_file(self) -> Path:
        """The text vectors, written at the first use."""
        assert self.problem.vectors is not None
        path = self._folder / "vectors.npy"
        if not path.exists():
            np.save(path, self.problem.vectors)
        return path

    def everything(self) -> Selection:
        """All training rows there are, in a store of their own."""
        assert self.problem.everything is not None
        return self._stored("everything", self.problem.everything)

    def _stored(self, name: str, rows: LabelledArrays) -> Selection:
        made = ArrayRows(rows.X, rows.y, class_names=self.class_names, encoder=self.encoder)
        return select(write_rows(self._folder / name, made), "train")


Maker = Callable[[Workbench], Trained]


def _trained(bench: Workbench, baseline: Baseline) -> Trained:
    """What `ltstore train` makes of the training rows."""
    moments = bench.moments_seconds
    words = baseline.words(bench.problem.seed)
    if baseline.sampler not in ("none", "auto"):
        words["per_class"] = bench.problem.per_class
    outcome = train(bench.selection, **words)
    seconds = {"moments": moments, "train": outcome.seconds, "total": moments + outcome.seconds}
    return Trained(model=outcome.model, settings=dict(outcome.model.record["settings"]), seconds=seconds)


def _plain(name: str) -> Maker:
    return partial(_trained, baseline=library.BASELINES[name])


def _text(bench: Workbench) -> Trained:
    vectors = {"vectors": str(bench.vectors_file)}
    made = _trained(bench, replace(library.BASELINES["text"], sampler_settings=vectors))
    made.settings["sampler_settings"] |= {
        "vectors": bench.vectors_file.name
    }  # where it lay is nobody's concern
    return made


def _leaning(bench: Workbench) -> Trained:
    """Logit adjustment with the lean whose score was the best in the backtest."""
    card = bench.card
    posthoc_tau = 0.0
    if card is not None:
        best = next(each for each in card.results if each.candidate.base == "la")
        posthoc_tau = best.candidate.posthoc_tau
    made = _trained(bench, Baseline(settings={"posthoc_tau": posthoc_tau}))
    return _with_backtest(made, card)


def _auto(bench: Workbench) -> Trained:
    card = bench.card  # kept beside the store, where `train` finds it
    return _with_backtest(_trained(bench, library.BASELINES["auto"]), card)


def _with_backtest(made: Trained, card: Card | None) -> Trained:
    if card is None:
        return made
    seconds = {**made.seconds, "backtest": card.seconds, "total": made.seconds["total"] + card.seconds}
    choice = card.choice
    told = {
        "choice": choice.candidate.name,
        "reason": card.reason,
        "n_head": card.n_head,
        "n_tail": card.n_tail,
    }
    told |= {name: getattr(choice, name) for name in ("gain", "gain_low", "gain_high", "head", "tail")}
    budget = {"trials": card.n_trials, "candidates": len(card.results)}
    return Trained(model=made.model, settings=made.settings, seconds=seconds, budget=budget, card=told)


def _all_rows(bench: Workbench) -> Trained:
    selection = bench.everything()
    outcome = train(selection, **library.BASELINES[library.ALL_ROWS].words(bench.problem.seed))
    seconds = {"train": outcome.seconds, "total": outcome.seconds}
    return Trained(model=outcome.model, settings=dict(outcome.model.record["settings"]), seconds=seconds)


def _zero_shot(bench: Workbench) -> Trained:
    assert bench.problem.vectors is not None
    model = LinearModel(
        weight=np.float32(CLIP_SCALE) * bench.problem.vectors,
        bias=np.zeros(bench.problem.n_classes, np.float32),
        class_names=bench.class_names,
        encoder=bench.encoder,
        encoder_spec="",
        normalized=True,
        class_counts=bench.problem.counts,
    )
    return Trained(model=model, settings={"head": "text vectors"}, seconds={"total": 0.0})


_IN_RECORDS = {"smote-spherical": "smote, spherical"}
"""Names that records have had from the beginning."""
SAMPLERS: dict[str, Maker] = {_IN_RECORDS.get(name, name): _plain(name) for name in library.SAMPLERS}
SAMPLERS["text"] = _text
HEADS: dict[str, Maker] = {
    **{name: _plain(name) for name in ("la", "ce", "gda", "ridge", "ncm")},
    LEAN: _leaning,
    "auto": _auto,
    **SAMPLERS,
    "implicit": _plain("implicit"),
    ALL_ROWS: _all_rows,
    ZERO_SHOT: _zero_shot,
}
"""By name; "la" first, since the others are compared with it."""
BASELINES = ("ce", "la", "gda", "ridge", "ncm", *SAMPLERS)
"""Single heads at their defaults, among which the best one is looked for with hindsight."""


def heads_of(problem: Problem) -> tuple[str, ...]:
    """Return the names of the heads that a problem can have."""
    without: set[str] = set()
    if problem.vectors is None:
        without |= {"text", ZERO_SHOT}
    if problem.everything is None:
        without.add(ALL_ROWS)
    return tuple(name for name in HEADS if name not in without)
