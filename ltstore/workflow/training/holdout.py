"""Rows that training is judged on while it goes: a share of the rows it was given, or rows under a name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ltstore.engine import Engine
from ltstore.errors import ConfigError, DataError
from ltstore.sources.longtail import stratified_holdout
from ltstore.stats import ClassMoments, class_moments
from ltstore.store import RowView
from ltstore.types import Donors, IntArray, Progress, Rows, no_progress
from ltstore.workflow.selection import Selection, select

_FOR_THE_END = "test"


class Division(NamedTuple):
    """What to train on and what to judge it on.

    Attributes
    ----------
    training : Selection
    rows : Rows or None
        The holdout.
    positions : (n,) int64 or None
        Which rows of the selection that was divided are trained on; None for all.
    """

    training: Selection
    rows: Rows | None
    positions: IntArray | None


@dataclass(frozen=True, kw_only=True)
class RestSelection(Selection):
    """What a holdout leaves of a selection; what is derived from it is not kept.

    Attributes
    ----------
    whole : Selection
    positions : (n,) int64
        Of the rows that are left.
    """

    whole: Selection
    positions: IntArray
    _made: list[ClassMoments] = field(default_factory=list, repr=False, compare=False)

    @property
    def name(self) -> str:
        """How these rows are called in messages."""
        return f"{self.whole.name} without its holdout"

    @cached_property
    def rows(self) -> RowView:
        """The rows that are left."""
        return self.whole.rows.select(self.positions)

    def moments(self, *, engine: Engine | None = None, progress: Progress = no_progress) -> ClassMoments:
        """Return the class moments of the rows that are left, made at the first call."""
        if not self._made:
            self._made.append(class_moments(self.rows, engine=engine))
        return self._made[0]

    def donors(self, by: str = "means", k: int = 5) -> Donors:
        """Return the donors of every class, by means: an index of just these rows is not there."""
        if by == "index":
            raise ConfigError(
                "donors by index need the index of the rows that are trained on, which a share held out has not: find "
                "them by means, or make a subset (ltstore subset --rule holdout) and index it"
            )
        return super().donors(by, k)


def divide(selection: Selection, holdout: float | str | None, seed: int) -> Division:
    """Set rows aside to judge a training on.

    Parameters
    ----------
    selection : Selection
        The rows to train on.
    holdout : float, str, optional
        A share in (0, 1) of the rows of each class (rounded; a class keeps a row at least); or the name of a subset of
        the selection's split, or of a split, that shares no row with the selection. Never the split "test", which is
        for judging what has been chosen.
    seed : int
        Of the share.

    Raises
    ------
    ConfigError
        The share is out of range, or the rows are those of "test".
    DataError
        There would be no holdout, or it overlaps what is trained on.
    StoreNotFoundError
        There is neither subset nor split of that name.
    """
    if holdout is None:
        return Division(selection, None, None)
    if isinstance(holdout, str):
        named = _named(selection, holdout)
        named.check()
        return Division(selection, named, None)
    rest, held = stratified_holdout(selection.rows.labels, holdout, seed=seed)
    if not len(held):
        raise DataError(
            f"{holdout:g} of the rows of each class of {selection.name!r} are none: hold out a larger share"
        )
    training = RestSelection(
        store=selection.store, split=selection.split, subset=selection.subset, whole=selection, positions=rest
    )
    return Division(training, selection.rows.select(held), rest)


def _named(selection: Selection, name: str) -> RowView:
    split = selection.store.split(selection.split)
    if name in split.subsets:
        rows = split.rows(name)
        shared = np.intersect1d(rows.row_ids, selection.rows.row_ids)
        if len(shared):
            raise DataError(
                f"subset {name!r} shares {len(shared)} rows with {selection.name!r}, row {shared[0]} first: a holdout "
                "must not be trained on"
            )
        return rows
    if name == _FOR_THE_END:
        raise ConfigError(
            "the test split is for judging what has been chosen, not for choosing: hold out a share"
        )
    if name == selection.split:
        raise DataError(f"{name!r} is the split that is trained on: hold out a share, or name other rows")
    return select(selection.store, name).rows
