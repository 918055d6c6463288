"""Choose how to treat the tail of a selection by a backtest, and keep the card beside the store."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltstore.atomic import write_json
from ltstore.backtest import RULE, Card, default_candidates, run_backtest
from ltstore.errors import ConfigError, StoreWriteError
from ltstore.provenance import record
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.types import Progress, no_progress
from ltstore.workflow.selection import Selection, select

CARD_FILE = "backtest.json"
_log = logging.getLogger(__name__)


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
    if not force and (card := _kept(path, selection, settings)) is not None:
        return BacktestOutcome(name=selection.name, card=card, path=path, reused=True)
    card = run_backtest(
        selection.rows,
        candidates=default_candidates(samplers),
        n_trials=n_trials,
        seed=seed,
        progress=progress,
        **options,
    )
    document = record("backtest", settings=settings, made_from=selection.made_from, seed=seed)
    try:
        write_json(path, {**document, "card": card.to_json()})
    except StoreWriteError as err:
        _log.warning("the card of the backtest is not kept: %s", err)
    return BacktestOutcome(name=selection.name, card=card, path=path, reused=False)


def kept_card(selection: Selection) -> Card | None:
    """Return the card that is kept of these rows, whatever its settings; None without one."""
    return _kept(selection.stats_path / CARD_FILE, selection, None)


def _kept(path: Path, selection: Selection, settings: dict[str, Any] | None) -> Card | None:
    """Return the card that is kept, if it is of these rows and (unless None) of these settings."""
    try:
        document = json.loads(path.read_bytes())
        if document["made_from"]["rows"] != selection.rows.digest:
            return None
        if settings is not None and document["settings"] != settings:
            return None
        return Card.from_json(document["card"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as err:
        _log.info("the card at %s is made anew: %s", path, err)
        return None
