"""Named subsets of a split: long-tailed cuts, lists of rows, hold-outs. Row ids only, no copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltstore.errors import ConfigError
from ltstore.sources.longtail import exp_cut, step_cut, stratified_holdout
from ltstore.storage import Place
from ltstore.store import Split, Store, open_store
from ltstore.types import IntArray

SUBSET_RULES = ("exp", "step", "file", "holdout")


def make_subset(
    store: Place | Store,
    name: str,
    *,
    split: str = "train",
    rule: str = "exp",
    imbalance: float = 100.0,
    fraction: float = 0.2,
    of: str | None = None,
    indices: Sequence[int] | IntArray | None = None,
    seed: int = 0,
) -> dict[str, IntArray]:
    """Store a subset of a split under a name.

    Parameters
    ----------
    store : path or Store
    name : str
        Name of the subset; "holdout" writes the held-out rows as NAME and the others as NAME-rest.
    split : str
    rule : {"exp", "step", "file", "holdout"}
        Long-tailed cuts by the LDAM-DRW convention, given row ids, or a stratified hold-out.
    imbalance : float
        Largest over smallest class of "exp" and "step".
    fraction : float
        Held-out share of each class of "holdout".
    of : str, optional
        Cut from this subset of the split, not from all of it.
    indices : sequence of int
        Row ids of "file".
    seed : int

    Returns
    -------
    dict of str to (n,) int64
        Row ids of each subset that was written.

    Raises
    ------
    ConfigError, StoreExistsError, StoreNotFoundError
    """
    opened = store if isinstance(store, Store) else open_store(store)
    target = opened.split(split)
    chosen = choose_rows(
        target, name, rule=rule, imbalance=imbalance, fraction=fraction, of=of, indices=indices, seed=seed
    )
    settings: dict[str, object] = {"rule": rule, "of": of, "seed": seed}
    if rule == "holdout":
        settings["fraction"] = fraction
    elif rule != "file":
        settings["imbalance"] = imbalance
    for subset_name, row_ids in chosen.items():
        target.add_subset(subset_name, row_ids, settings=settings)
    return chosen


def choose_rows(
    target: Split,
    name: str,
    *,
    rule: str,
    imbalance: float = 100.0,
    fraction: float = 0.2,
    of: str | None = None,
    indices: Sequence[int] | IntArray | None = None,
    seed: int = 0,
) -> dict[str, IntArray]:
    """Return the rows that `make_subset` would store, by the name of their subset; nothing is written."""
    if rule not in SUBSET_RULES:
        raise ConfigError(f"unknown rule {rule!r}; known: {', '.join(SUBSET_RULES)}")
    if (indices is None) == (rule == "file"):
        raise ConfigError("rule 'file' needs row ids, and only it takes them")
    if rule == "file" and of is not None:
        raise ConfigError("rule 'file' takes row ids of the split as they are: leave `of` out")
    rows = target.rows(of)
    if rule == "file":
        # Given ids are taken as they are: a row without an embedding stays in the list and out of the rows.
        return {name: np.sort(np.asarray(indices, np.int64))}
    if rule == "holdout":
        rest, held = stratified_holdout(rows.labels, fraction, seed=seed)
        return {name: rows.row_ids[np.sort(held)], f"{name}-rest": rows.row_ids[np.sort(rest)]}
    cut = exp_cut if rule == "exp" else step_cut
    positions = cut(rows.labels, imbalance, n_classes=len(target.class_names), seed=seed)
    return {name: rows.row_ids[np.sort(positions)]}
