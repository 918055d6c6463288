"""What a backtest found: every candidate's accuracy on cut and on kept classes, and the choice with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ltstore.backtest.candidates import Candidate
from ltstore.backtest.plan import Trial
from ltstore.errors import ConfigError
from ltstore.types import BoolArray, DoubleArray, IntArray

EQUAL = 1.0
"""Leans within so many standard errors (of the paired difference) of the best one's score count as equal.

The one-standard-error rule: Breiman et al. 1984, "Classification and regression trees", section 3.4.3.
"""
BEATEN = 0.05
"""The widest blend is left for another base only if that one is ahead at this level: a paired t-test over classes.

Divided by the number of bases (Bonferroni), because the best of many noisy scores is ahead by luck (docs/methods.md).
"""
REFERENCE = "la"
RULE = 3
"""Raised when what is tried by default, or how is chosen, changes: a kept card of another rule is made anew."""
_INTERVAL = 0.95
_FEW, _MANY = 20, 100


@dataclass(frozen=True, kw_only=True)
class Result:
    """One candidate, judged. Accuracies are shares in 0..1; None where there was nothing to judge.

    Attributes
    ----------
    candidate : Candidate
    score : float
        Expected balanced accuracy: accuracy over kept classes and over cut ones, weighted by the shares of large and of
        small classes in the rows.
    head, tail : float
        Accuracy over kept, and over cut classes.
    few, medium, many : float or None
        Accuracy over judged classes that had fewer than 20, 20 to 100, more than 100 rows in their trial.
    gain, gain_low, gain_high : float
        Score minus that of plain logit adjustment in the same trials, and its 95 % interval.
    behind, behind_error : float
        Best score minus this one, and the standard error of that difference.
    n_trials : int
        Trials it ran in: what is far behind after the first pair is left out of the others.
    """

    candidate: Candidate
    score: float
    head: float
    tail: float
    few: float | None
    medium: float | None
    many: float | None
    gain: float
    gain_low: float
    gain_high: float
    behind: float
    behind_error: float
    n_trials: int

    @property
    def equal(self) -> bool:
        """Whether the best score cannot be told from this one (by `EQUAL`)."""
        return self.behind <= EQUAL * self.behind_error

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "name": self.candidate.name,
            "equal": self.equal,
            **{k: v for k, v in asdict(self).items() if k != "candidate"},
            "candidate": self.candidate.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Card:
    """All results, best score first, and what they were made from.

    Attributes
    ----------
    results : tuple of Result
    chosen : int
        Position of the choice in `results`.
    reason : str
    rows_digest : str
    n_trials, rows_per_class, seed : int
    n_head, n_tail : int
        The larger half of the classes, and the others that have rows.
    seconds : float
    """

    results: tuple[Result, ...]
    chosen: int
    reason: str
    rows_digest: str
    n_trials: int
    rows_per_class: int
    seed: int
    n_head: int
    n_tail: int
    seconds: float

    @property
    def choice(self) -> Result:
        """The chosen one."""
        return self.results[self.chosen]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict that `from_json` turns into an equal card."""
        rest = {k: v for k, v in vars(self).items() if k != "results"}
        return {
            **rest,
            "choice": self.choice.candidate.name,
            "results": [each.to_json() for each in self.results],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Card:
        """Return the card; ConfigError where it is none, or names what is not known here."""
        try:
            results = tuple(
                Result(
                    candidate=Candidate.from_json(each["candidate"]),
                    **{k: v for k, v in each.items() if k not in ("name", "equal", "candidate")},
                )
                for each in data["results"]
            )
            card = cls(results=results, **{k: v for k, v in data.items() if k not in ("results", "choice")})
            card.choice  # noqa: B018
        except (KeyError, TypeError, IndexError) as err:
            raise ConfigError(f"not a backtest card: {err}") from err
        return card


def judge(
    candidates: Sequence[Candidate],
    accuracy: DoubleArray,
    trials: Sequence[Trial],
    *,
    n_head: int,
    n_tail: int,
    **facts: Any,
) -> Card:
    """Make the card of per-class accuracies.

    The choice is made in two steps. The base (the members of a blend) is the widest one's, unless the best score is
    surely ahead of all its leans (`BEATEN`): then that of the best score. Its lean is, among those whose score cannot
    be told from its best lean's (`EQUAL`), the one with the highest accuracy over cut classes: what is equal over all
    classes is chosen for the tail.

    Parameters
    ----------
    candidates : K of Candidate
        One of them named `REFERENCE` or else the first is what all are compared with; it must have run in all trials.
    accuracy : (K, T, C) float64
        NaN where a class is not judged in a trial, or the candidate did not run in it.
    trials : T of Trial
    n_head, n_tail : int
    **facts
        The other attributes of the card.

    Notes
    -----
    Candidates are compared on the trials that both ran in. A score is a sum over the judged classes, each with what it
    gives where it is kept and where it is cut, and so is a difference; its standard error takes classes as drawn
    independently, but not the trials of a class. Its quantiles are those of t with as many degrees of freedom as there
    are judged classes, less one: five classes tell little.
    """
    names = [candidate.name for candidate in candidates]
    reference = names.index(REFERENCE) if REFERENCE in names else 0
    table = _Table(accuracy, trials, n_head, n_tail)
    base = table.score(reference)
    gains = np.array([table.difference(k, reference) for k in range(len(candidates))])
    half_width = table.quantile((1 + _INTERVAL) / 2)
    order = np.argsort(-gains[:, 0], kind="stable").tolist()
    results = [
        Result(
            candidate=candidates[k],
            score=base + float(gains[k, 0]),
            **table.accuracies(k),
            gain=float(gains[k, 0]),
            gain_low=float(gains[k, 0] - half_width * gains[k, 1]),
            gain_high=float(gains[k, 0] + half_width * gains[k, 1]),
            behind=float(gains[order[0], 0] - gains[k, 0]),
            behind_error=table.difference(k, order[0])[1],
            n_trials=table.n_trials(k),
        )
        for k in order
    ]
    chosen, reason = _choose(results, candidates, order, table)
    return Card(
        results=tuple(results),
        chosen=chosen,
        reason=reason,
        n_trials=len(trials),
        n_head=n_head,
        n_tail=n_tail,
        **facts,
    )


def widest(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the most members, the first among equals."""
    return max(candidates, key=lambda candidate: len(candidate.members))


def _choose(
    results: Sequence[Result], candidates: Sequence[Candidate], order: Sequence[int], table: _Table
) -> tuple[int, str]:
    """Return the position of the choice in the results, and why it is the choice."""
    base = widest(candidates).base
    others = {candidate.base for candidate in candidates} - {base}
    errors = table.quantile(1 - BEATEN / max(len(others), 1))
    reason = f"no other base is ahead of the widest by {errors:.1f} standard errors"
    if all(each.behind > errors * each.behind_error for each in results if each.candidate.base == base):
        base = results[0].candidate.base
        reason = f"its base is ahead of the widest by more than {errors:.1f} standard errors"
    leans = [place for place, each in enumerate(results) if each.candidate.base == base]
    equal = [leans[0]]
    for place in leans[1:]:
        behind, error = table.difference(order[leans[0]], order[place])
        if behind <= EQUAL * error:
            equal.append(place)
    chosen = max(equal, key=lambda place: (results[place].tail, -place))
    told = (
        "its best lean"
        if chosen == leans[0]
        else f"the best tail among {len(equal)} leans that cannot be told apart"
    )
    return chosen, f"{reason}; {told}"


class _Table:
    """Accuracy of every candidate on every judged class of every trial."""

    def __init__(self, accuracy: DoubleArray, trials: Sequence[Trial], n_head: int, n_tail: int) -> None:
        kept = np.stack([trial.kept for trial in trials])
        cut = np.stack([trial.cut for trial in trials])
        self._accuracy = accuracy
        self._kinds = (kept, n_head / (n_head + n_tail)), (cut, n_tail / (n_head + n_tail))
        self._judged = kept | cut
        self._shots: IntArray = np.stack([trial.shots for trial in trials])
        self._ran: BoolArray = np.asarray(np.isfinite(accuracy).any(axis=2))

    def n_trials(self, k: int) -> int:
        return int(self._ran[k].sum())

    def score(self, k: int) -> float:
        return sum(share * float(np.nanmean(self._accuracy[k][kind])) for kind, share in self._kinds)

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """Score of a minus that of b where both ran, and its standard error."""
        found = self._accuracy[a] - self._accuracy[b]
        there = np.isfinite(found)
        by_class = np.zeros(found.shape[1])
        for kind, share in self._kinds:
            by_class += share * np.where(there & kind, found, 0.0).sum(axis=0) / np.count_nonzero(there & kind)
        by_class = by_class[there.any(axis=0)]
        spread = float(by_class.std(ddof=1)) if len(by_class) > 1 else 0.0
        return float(by_class.sum()), float(np.sqrt(len(by_class))) * spread

    def quantile(self, probability: float) -> float:
        """Of a difference over its standard error."""
        from scipy.special import stdtrit

        n_classes = np.count_nonzero(self._judged.any(axis=0))
        return float(stdtrit(max(n_classes - 1, 1), probability))

    def accuracies(self, k: int) -> dict[str, Any]:
        accuracy: DoubleArray = self._accuracy[k]
        judged = np.isfinite(accuracy) & self._judged

        def over(low: int, high: float) -> float | None:
            values = accuracy[judged & (self._shots >= low) & (self._shots < high)]
            return float(values.mean()) if len(values) else None

        head, tail = (float(accuracy[judged & kind].mean()) for kind, _ in self._kinds)
        return {
            "head": head,
            "tail": tail,
            "few": over(0, _FEW),
            "medium": over(_FEW, _MANY + 1),
            "many": over(_MANY + 1, np.inf),
        }
