"""Draw again, a bounded number of times, the rows that a judge says belong to another class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ltstore.errors import ConfigError
from ltstore.metrics import count_groups
from ltstore.sampling.base import BaseSampler, DrawKey
from ltstore.sampling.bounds import check_count
from ltstore.sampling.targets import bounded_targets
from ltstore.types import BoolArray, Donors, DoubleArray, FloatArray, IntArray, Moments, Rows, SyntheticRows

MAX_DRAWS = 5
RATE_ROWS = 2000
"""Most rows that the acceptance rates are taken of."""
_RUN_GAP = 32  # rows between two rejected ones that are drawn with them rather than apart


class Judge(Protocol):
    """Says whether a row may pass for one of a class.

    Its word on a row must not depend on the rows beside it, to the bit, and it must be picklable.
    """

    @property
    def name(self) -> str:
        """The name after --accept."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values that decide what it says, besides the rows it is fitted to."""

    def fit(self, rows: Rows, moments: Moments) -> Judge:
        """Keep what judging needs of the real rows; returns self."""

    def __call__(self, X: FloatArray, class_id: int) -> BoolArray:
        """Return (n,) which of (n, D) rows pass."""


class AcceptingSampler(BaseSampler):
    """Another sampler's rows, drawn again where the judge rejects them, at most `max_draws` times in all.

    Attempt a of a row in epoch e is the inner sampler's row of that number in epoch ``e * max_draws + a``: attempts are
    independent, and a row stays a function of (seed, sampler, settings, class, epoch, i). The last attempt is kept
    whatever the judge says. What is accepted at once in epoch 0 is the inner sampler's own row.

    The name is the inner sampler's; the settings have "accept" besides: {"judge": name, "max_draws": n, ...}.

    Rejecting bends the law that is sampled: rows keep away from the boundaries that the judge draws.

    Parameters
    ----------
    inner : BaseSampler
    judge : Judge
    max_draws : int
        At least 1; 1 accepts everything.
    """

    def __init__(self, inner: BaseSampler, judge: Judge, max_draws: int = MAX_DRAWS) -> None:
        check_count("accept", "max_draws", max_draws)
        self.name = inner.name  # type: ignore[misc]
        self._inner = inner
        self._judge = judge
        self._max_draws = max_draws
        self._rows = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The inner sampler's, and "accept"."""
        accept = {"judge": self._judge.name, "max_draws": self._max_draws, **self._judge.settings}
        return {**self._inner.settings, "accept": accept}

    def sample(self, class_id: int, start: int, stop: int, *, seed: int, epoch: int = 0) -> SyntheticRows:
        """Return rows [start, stop) of the class's sequence; errors are the inner sampler's."""
        return self._attempt(class_id, start, stop, seed, epoch)[0]

    def attempts(self, class_id: int, start: int, stop: int, *, seed: int, epoch: int = 0) -> IntArray:
        """Return (n,) int64: which attempt of each row was accepted, from 1; 0 where none was and the last is kept."""
        return self._attempt(class_id, start, stop, seed, epoch)[1]

    def _attempt(
        self, class_id: int, start: int, stop: int, seed: int, epoch: int
    ) -> tuple[SyntheticRows, IntArray]:
        if epoch < 0:
            raise ConfigError(f"epoch must be at least 0, found {epoch}")
        first = epoch * self._max_draws
        made = self._inner.sample(class_id, start, stop, seed=seed, epoch=first)
        attempts = np.where(self._judge(made.X, class_id), 1, 0).astype(np.int64)
        if attempts.all():
            return made, attempts
        X, parent_ids, donor_ids = made.X.copy(), made.parent_ids.copy(), made.donor_ids.copy()
        for attempt in range(1, self._max_draws):
            waiting = np.flatnonzero(attempts == 0)
            for run in np.split(waiting, np.flatnonzero(np.diff(waiting) > _RUN_GAP) + 1):
                if not len(run):
                    continue
                low, high = int(run[0]), int(run[-1]) + 1
                again = self._inner.sample(
                    class_id, start + low, start + high, seed=seed, epoch=first + attempt
                )
                nth = run - low
                X[run], parent_ids[run] = again.X[nth], again.parent_ids[nth]
                donor_ids[run] = again.donor_ids[nth]
            if len(waiting):
                attempts[waiting] = np.where(self._judge(X[waiting], class_id), attempt + 1, 0)
        return SyntheticRows(X=X, labels=made.labels, parent_ids=parent_ids, donor_ids=donor_ids), attempts

    def _fit(self, moments: Moments, donors: Donors) -> None:
        self._inner.fit(self.rows, moments, donors)
        self._judge.fit(self.rows, moments)

    def _draw(self, class_id: int, key: DrawKey) -> SyntheticRows:
        return self.sample(class_id, key.start, key.stop, seed=key.seed, epoch=key.epoch)


@dataclass(frozen=True, kw_only=True, eq=False)
class AcceptanceRates:
    """How often rows were accepted.

    Attributes
    ----------
    counts : (C,) int64
        Real rows of each class: they make the groups.
    n_rows : (C,) int64
        Rows looked at, the first of each class.
    accepted_first, accepted : (C,) float64
        Share accepted at the first attempt, and at any; NaN where no row was looked at.
    kept_rejected : (C,) int64
        Rows, of those looked at, that were kept although the last attempt was rejected too.
    """

    counts: IntArray
    n_rows: IntArray
    accepted_first: DoubleArray
    accepted: DoubleArray
    kept_rejected: IntArray

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: by group, all together (means over classes), and class by class."""
        groups = {**count_groups(self.counts), "all": np.ones(len(self.counts), np.bool_)}
        found: dict[str, Any] = {"n_rows": int(self.n_rows.sum()), "groups": {}}
        for name, members in groups.items():
            some = members & (self.n_rows > 0)
            if some.any():
                found["groups"][name] = {
                    "accepted_first": float(self.accepted_first[some].mean()),
                    "accepted": float(self.accepted[some].mean()),
                    "kept_rejected": int(self.kept_rejected[some].sum()),
                    "n_rows": int(self.n_rows[some].sum()),
                }
        found["classes"] = [
            {
                "class_id": int(c),
                "n_rows": int(self.n_rows[c]),
                "accepted_first": float(self.accepted_first[c]),
                "accepted": float(self.accepted[c]),
                "kept_rejected": int(self.kept_rejected[c]),
            }
            for c in np.flatnonzero(self.n_rows)
        ]
        return found


def acceptance_rates(
    sampler: AcceptingSampler,
    targets: IntArray,
    counts: IntArray,
    *,
    seed: int,
    epoch: int = 0,
    max_rows: int = RATE_ROWS,
) -> AcceptanceRates:
    """Draw the first rows of every class once more and count what the judge accepted.

    The count does not depend on how, or in how many runs, the set itself is drawn; where a class's target is
    within the bound it is of all its rows.

    Parameters
    ----------
    sampler : AcceptingSampler
        Fitted.
    targets, counts : (C,) int64
        Synthetic and real rows of each class.
    max_rows : int
        See `bounded_targets`.
    """
    n_rows = bounded_targets(targets, counts, max_rows)
    first, some = np.full(len(n_rows), np.nan), np.full(len(n_rows), np.nan)
    rejected = np.zeros(len(n_rows), np.int64)
    for c in np.flatnonzero(n_rows).tolist():
        attempts = sampler.attempts(c, 0, int(n_rows[c]), seed=seed, epoch=epoch)
        first[c], some[c] = (attempts == 1).mean(), (attempts > 0).mean()
        rejected[c] = np.count_nonzero(attempts == 0)
    return AcceptanceRates(
        counts=np.asarray(counts, np.int64),
        n_rows=n_rows,
        accepted_first=first,
        accepted=some,
        kept_rejected=rejected,
    )
