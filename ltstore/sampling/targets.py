"""How many synthetic rows each class gets: pure arithmetic on the class counts."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np

from ltstore.errors import ConfigError
from ltstore.types import IntArray

Mode = Literal["balance", "per-class"]
_log = logging.getLogger(__name__)


def balance_targets(
    counts: IntArray,
    *,
    mode: Mode = "balance",
    per_class: int | None = None,
    max_ratio: float | None = None,
) -> IntArray:
    """Return the number of synthetic rows of each class.

    Parameters
    ----------
    counts : (C,) int64
        Real rows of each class.
    mode : "balance" or "per-class"
        "balance": up to the largest class, ``counts.max() - counts``. "per-class": `per_class` rows for each.
    per_class : int, optional
        At least 0; with mode "per-class" only.
    max_ratio : float, optional
        At most this many synthetic rows per real row of a class, at least 0.

    Returns
    -------
    (C,) int64, new. A class without rows gets 0, which is logged as a warning: nothing is known of it.

    Raises
    ------
    ConfigError
        The settings contradict each other or are out of range.
    """
    counts = np.asarray(counts, np.int64)
    if mode not in ("balance", "per-class"):
        raise ConfigError(f"mode must be 'balance' or 'per-class', found {mode!r}")
    if (mode == "per-class") != (per_class is not None):
        raise ConfigError(f"mode {mode!r} and per_class={per_class} contradict each other")
    if per_class is not None and per_class < 0:
        raise ConfigError(f"per_class must be at least 0, found {per_class}")
    if max_ratio is not None and not (np.isfinite(max_ratio) and max_ratio >= 0):
        raise ConfigError(f"max_ratio must be finite and at least 0, found {max_ratio}")
    wanted = counts.max(initial=0) - counts if per_class is None else np.full_like(counts, per_class)
    if max_ratio is not None:
        wanted = np.minimum(wanted, np.floor(max_ratio * counts).astype(np.int64))
    empty = np.flatnonzero((counts == 0) & (wanted > 0))
    if len(empty):
        _log.warning(
            "%d of %d classes have no rows and get no synthetic ones, first class %d",
            len(empty),
            len(counts),
            empty[0],
        )
    return np.where(counts > 0, wanted, 0).astype(np.int64)


def bounded_targets(targets: IntArray, counts: IntArray, limit: int) -> IntArray:
    """Return how many rows of each class to look at: `targets`, cut down to at most `limit` in all.

    Every class gets the same bound, the largest for which the sum fits; what is then left of `limit` goes to the
    classes with the fewest real rows, one more each. Where there are more classes than `limit`, those with the
    fewest real rows get one row each.

    Parameters
    ----------
    targets, counts : (C,) int64
        Synthetic and real rows of each class.
    limit : int
        At least 1.

    Returns
    -------
    (C,) int64, new; nowhere more than `targets`
    """
    if limit < 1:
        raise ConfigError(f"limit must be at least 1, found {limit}")
    targets = np.asarray(targets, np.int64)
    low, high = 0, int(targets.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(targets, middle).sum() <= limit else (low, middle - 1)
    bounded = np.minimum(targets, low)
    more = np.flatnonzero(targets > low)
    smallest = more[np.argsort(np.asarray(counts)[more], kind="stable")]
    bounded[smallest[: limit - int(bounded.sum())]] += 1
    return bounded
