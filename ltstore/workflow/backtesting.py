"""Choose how to treat the tail of a selection by a backtest, and keep the card beside the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltstore.backtest import RULE, Card, default_candidates, run_backtest
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.types import Progress, no_progress
from ltstore.workflow.kept import keep, read_kept
from ltstore.workflow.selection import Selection, select

CARD_FILE = "backtest.json"


@dataclass(frozen=True, kw_only=True)
class BacktestOutcome:
    """A card, and where it is kept.

    Attributes
    ----------
    name : str
        The selection: "train", or "train/SUBSET".
    card : Card
    path : Path
    reused : bool
        Whether the card was there already, of the same rows and settings.
    """

    name: str
    card: Card
    path: Path
    reused: bool

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {"name": self.name, "path": str(self.path), "reused": self.reused, **self.card.to_json()}


def backtest(
    store: Place | Store | Selection,
    *,
    split: str = "train",
    subset: str | None = None,
    samplers: Sequence[str] | None = None,
    n_trials: int = 4,
    rows_per_class: int | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = no_progress,
) -> BacktestOutcome:
    """Compare heads, samplers and leans on large classes that are cut down to small size, and choose.

    Only the selected rows are read: no test split can reach the choice.

    Parameters
    ----------
    store : path, URL, Store or Selection
    split, subset : str
        Used where `store` is no Selection.
    samplers : sequence of str, optional
        Only these samplers; default all that need no setting.
    n_trials, rows_per_class, seed
        See `ltstore.backtest.run_backtest`.
    force : bool
        Run again although there is a card of these rows and settings.

    Raises
    ------
    DataError
        There is no tail to choose for, or too few head classes to learn it from.
    ConfigError, StoreNotFoundError, IncompleteStoreError, StoreFormatError
    """
    selection = store if isinstance(store, Selection) else select(store, split, subset)
    selection.require_labels()
    options: dict[str, Any] = {} if rows_per_class is None else {"rows_per_class": rows_per_class}
    settings = {
        "samplers": list(samplers) if samplers is not None else None,
        "n_trials": n_trials,
        "seed": seed,
        "rule": RULE,
    }
    settings |= options
    path = selection.stats_path / CARD_FILE
    if not force and (card := read_kept(path, "card", selection, settings, Card.from_json)) is not None:
        return BacktestOutcome(name=selection.name, card=card, path=path, reused=True)
    selection.check()
    card = run_backtest(
        selection.rows,
        candidates=default_candidates(samplers),
        n_trials=n_trials,
        seed=seed,
        progress=progress,
        **options,
    )
    keep(path, "card", selection, settings, card.to_json(), kind="backtest", seed=seed)
    return BacktestOutcome(name=selection.name, card=card, path=path, reused=False)


def kept_card(selection: Selection) -> Card | None:
    """Return the card that is kept of these rows, whatever its settings; None without one."""
    return read_kept(selection.stats_path / CARD_FILE, "card", selection, None, Card.from_json)
