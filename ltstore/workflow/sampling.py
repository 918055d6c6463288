"""Make a sampler ready for a selection, and materialise its rows beside the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.linear import gda
from ltstore.quality import Quality
from ltstore.sampling import (
    AcceptingSampler,
    BaseSampler,
    Judge,
    LinearJudge,
    NearestJudge,
    TextSampler,
    acceptance_rates,
    balance_targets,
    make_sampler,
    materialize,
)
from ltstore.sampling.acceptance import MAX_DRAWS, AcceptanceRates
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.types import IntArray, Progress, SyntheticRows, no_progress
from ltstore.workflow.class_text import class_text_file
from ltstore.workflow.measuring import measure_sampler
from ltstore.workflow.selection import Selection, select

JUDGES: dict[str, Callable[..., Judge]] = {
    "gda": partial(LinearJudge, "gda", gda),
    "nearest": NearestJudge,
}


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    """What `sample` made; `acceptance` where a judge was asked, `quality` where it was measured."""

    name: str
    sampler: str
    settings: Mapping[str, Any]
    donors_by: str
    n_rows: int
    n_classes: int
    empty_classes: int
    seconds: float
    acceptance: AcceptanceRates | None = None
    quality: Quality | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            **vars(self),
            "settings": dict(self.settings),
            "acceptance": None if self.acceptance is None else self.acceptance.to_json(),
            "quality": None if self.quality is None else self.quality.to_json(),
        }


def build_sampler(
    store: Store, name: str, settings: Mapping[str, Any] | None = None, accept: str = "none"
) -> BaseSampler:
    """Return an unfitted sampler, with a judge over it where `accept` names one.

    Parameters
    ----------
    store : Store
        Its class text is what sampler `text` takes where no vectors are given.
    name : str
    settings : mapping, optional
        Of the sampler; as recorded of one with a judge they have "accept" among them, which then decides.
    accept : {"none", "gda", "nearest"}
        Rows that the judge says are of another class are drawn again, at most five times in all.

    Raises
    ------
    ConfigError
        Unknown sampler, judge or setting.
    StoreNotFoundError, EncoderMismatchError, DataError, StoreFormatError
        The class text that is needed is not there, or not of these classes.
    """
    own = dict(settings or {})
    recorded = own.pop("accept", None)
    sampler = make_sampler(name, **own)
    if isinstance(sampler, TextSampler) and not sampler.settings["vectors"]:
        sampler.default_vectors = class_text_file(store)
    if recorded is None and accept == "none":
        return sampler
    chosen = {"judge": accept, "max_draws": MAX_DRAWS} if recorded is None else recorded
    options = dict(chosen) if isinstance(chosen, Mapping) else {"judge": chosen}
    judge = options.pop("judge", None)
    if judge not in JUDGES:
        raise ConfigError(f"rows are accepted by none, {' or '.join(JUDGES)}, found {judge!r}")
    try:
        max_draws = options.pop("max_draws", MAX_DRAWS)
        return AcceptingSampler(sampler, JUDGES[judge](**options), max_draws)
    except TypeError as err:
        raise ConfigError(f"accept: judge {judge!r} does not take {sorted(options)}") from err


def fit_sampler(
    selection: Selection,
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    donors_by: str = "means",
    accept: str = "none",
) -> BaseSampler:
    """Return the named sampler fitted to a selection, with donors found as `Selection.donors` says."""
    selection.require_labels()
    sampler = build_sampler(selection.store, name, settings, accept)
    return sampler.fit(selection.rows, selection.moments(), selection.donors(donors_by))


def rates_of(
    sampler: BaseSampler, selection: Selection, targets: IntArray, seed: int
) -> AcceptanceRates | None:
    """Return how often the sampler's rows are accepted, None where there is no judge."""
    if not isinstance(sampler, AcceptingSampler):
        return None
    return acceptance_rates(sampler, targets, selection.counts, seed=seed)


def plan_targets(selection: Selection, per_class: int | None, max_ratio: float | None = None) -> IntArray:
    """Return (C,) int64 synthetic rows of each class: `per_class` each, or up to the largest class.

    Raises
    ------
    ConfigError
        No class would get any.
    """
    mode: Literal["balance", "per-class"] = "balance" if per_class is None else "per-class"
    targets = balance_targets(selection.counts, mode=mode, per_class=per_class, max_ratio=max_ratio)
    if not targets.any():
        raise ConfigError(
            f"{selection.name!r} is balanced already: there is nothing to sample; ask for rows by per_class, "
            "or leave the sampler out"
        )
    return targets


def sample(
    store: Place | Store,
    *,
    name: str,
    sampler: str = "neighbor-gauss",
    settings: Mapping[str, Any] | None = None,
    split: str = "train",
    subset: str | None = None,
    per_class: int | None = None,
    max_ratio: float | None = None,
    donors_by: str = "means",
    accept: str = "none",
    quality: bool = False,
    seed: int = 0,
    dtype: str = "float16",
    n_workers: int | str = "auto",
    planned: Callable[[int], None] = lambda n_rows: None,
    progress: Progress = no_progress,
) -> SampleResult:
    """Write synthetic rows, with their parents and donors, into the store's synthetic/NAME.

    Parameters
    ----------
    per_class : int, optional
        Synthetic rows of every class; left out, every class is filled up to the largest one.
    max_ratio : float, optional
        At most this many synthetic rows per real row of a class.
    donors_by : {"means", "index"}
        How donors are found, see `Selection.donors`.
    accept : {"none", "gda", "nearest"}
        Draw rows again that this judge says are of another class, see `build_sampler`.
    quality : bool
        Measure the rows (see `ltstore.quality`) and keep what was found in stats/, where reports look for it.
    n_workers : int or "auto"
        Threads that draw; the rows do not depend on it.
    planned : callable
        Told, before the first row is drawn, how many are to be.

    Raises
    ------
    StoreNotFoundError, StoreExistsError, ConfigError, DataError, PlanMismatchError, StoreWriteError

    Notes
    -----
    The same call again resumes a run that was killed, and the result does not depend on the kill.
    """
    selection = select(store, split, subset)
    started = time.perf_counter()
    selection.check()
    fitted = fit_sampler(selection, sampler, settings, donors_by=donors_by, accept=accept)
    targets = plan_targets(selection, per_class, max_ratio)
    recorded = {
        "sampler": fitted.name,
        "sampler_settings": dict(fitted.settings),
        "per_class": per_class,
        "max_ratio": max_ratio,
        "seed": seed,
        "made_from": selection.made_from,
        "donors_by": donors_by,
    }
    with selection.store.begin_split(
        name,
        n_rows=int(targets.sum()),
        source_digest=selection.rows.digest,
        dtype=dtype,
        settings=recorded,
        synthetic=True,
    ) as writer:
        planned(sum(stop - start for start, stop in map(writer.plan.shard_range, writer.pending)))
        materialize(fitted, targets, writer, seed=seed, n_workers=n_workers, progress=progress)
    seconds = time.perf_counter() - started
    measured = None
    if quality:
        unfitted = partial(build_sampler, selection.store, sampler, settings, accept)
        measured = measure_sampler(
            selection, fitted, targets, unfitted=unfitted, donors_by=donors_by, seed=seed
        ).quality
    return SampleResult(
        name=name,
        sampler=fitted.name,
        settings=dict(fitted.settings),
        donors_by=donors_by,
        n_rows=int(targets.sum()),
        n_classes=int((targets > 0).sum()),
        empty_classes=int((selection.counts == 0).sum()),
        seconds=seconds,
        acceptance=rates_of(fitted, selection, targets, seed),
        quality=measured,
    )


class StoredSampler:
    """A materialised set of synthetic rows, as a `ltstore.types.Sampler` that gives them out in order.

    Raises
    ------
    DataError
        The set was made from other rows than the selection's.
    """

    def __init__(self, selection: Selection, name: str) -> None:
        split = selection.store.synthetic(name)
        if split.source_digest != selection.rows.digest:
            made_from = split.settings.get("made_from", {})
            raise DataError(
                f"synthetic rows {name!r} were made from {made_from} and not from the rows of {selection.name!r}: "
                "sample again from these"
            )
        self._rows = split.rows(normalize=selection.rows.normalized)
        order = np.argsort(self._rows.labels, kind="stable")
        self.targets: IntArray = np.bincount(self._rows.labels, minlength=len(self._rows.class_names))
        self._positions = np.split(order, np.cumsum(self.targets)[:-1])
        self._name = name
        self._settings = dict(split.settings)
        self.digest = split.digest

    @property
    def name(self) -> str:
        """The name of the set."""
        return self._name

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings the set was made with."""
        return self._settings

    def fit(self, *_: object) -> StoredSampler:
        """Return self: the rows are made already."""
        return self

    def sample(self, class_id: int, start: int, stop: int, *, seed: int, epoch: int = 0) -> SyntheticRows:
        """Return rows [start, stop) of the class; `seed` and `epoch` were fixed when the set was made."""
        positions = self._positions[class_id][start:stop]
        if len(positions) < stop - start:
            raise DataError(
                f"synthetic rows {self._name!r} hold {len(self._positions[class_id])} rows of class {class_id}, "
                f"asked for {stop}"
            )
        n = len(positions)
        return SyntheticRows(
            X=self._rows.take(positions),
            labels=np.full(n, class_id, np.int64),
            parent_ids=np.full((n, 0), -1, np.int64),
            donor_ids=np.full((n, 0), -1, np.int64),
        )
