"""How many of the true neighbours an index finds: rows held out of it ask, and exact search knows.

A row that is in the index finds itself and its near copies too easily, and an index trained on it fits it too well.
So some rows are kept back while the index is trained and filled, ask it, and are added last: nothing else is read,
no test split either. Half of them choose the search parameters, the other half are reported.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ltstore.metrics import count_groups
from ltstore.neighbors.exact import ExactIndex
from ltstore.neighbors.kinds import IndexPlan
from ltstore.neighbors.metric import RestrictedIndex
from ltstore.rng import stream
from ltstore.rows import class_counts
from ltstore.types import BoolArray, DoubleArray, FloatArray, IntArray, Rows

TAIL = ("medium", "few")
N_TIMED = 200
_FEWEST = 20  # of fewer queries no recall is said
_ROUNDING = 4e-6  # float32 products of unit rows against float64 ones
_SHARE = 10  # one row in so many may be held out


@dataclass(frozen=True, kw_only=True)
class RecallReport:
    """What an index finds, and how quickly.

    Attributes
    ----------
    k : int
    wanted : float
    reached : bool
        Whether "all" and "tail" are at least `wanted`.
    queries : str
        Which rows asked.
    n_queries : dict of str to int
        By group, see `recall`.
    recall : dict of str to float
        Mean share of the k true neighbours that is found: "all", by group of the query's class ("many", "medium",
        "few") and "tail" (medium and few). Groups of fewer than 20 queries are left out.
    tail_neighbors : float or None
        Share of those true neighbours found that are rows of tail classes, whatever the query.
    milliseconds : dict of str to float
        "mean", "p50", "p95" and "p99" of queries asked one at a time.
    n_indexed : int
        Rows in the index when it was asked.
    """

    k: int
    wanted: float
    reached: bool
    queries: str
    n_queries: dict[str, int]
    recall: dict[str, float]
    tail_neighbors: float | None
    milliseconds: dict[str, float]
    n_indexed: int

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict; ``RecallReport(**dict)`` is equal."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Rows kept back as queries.

    Attributes
    ----------
    positions : (q,) int64
        In the rows, ascending.
    uniform : (q,) bool
        Drawn from all rows alike; the others are drawn from tail classes alone.
    """

    positions: IntArray
    uniform: BoolArray


def hold_out(rows: Rows, n_queries: int, *, first: int = 0, seed: int = 0) -> HeldOut:
    """Choose queries among the rows from position `first` on: half from all, half from tail classes, without repeats.

    At most one row in ten; none where that would be fewer than 40 (20 that choose, 20 that are reported).
    """
    n = min(n_queries, (rows.n_samples - first) // _SHARE)
    if n < 2 * _FEWEST:
        return HeldOut(positions=np.zeros(0, np.int64), uniform=np.zeros(0, np.bool_))
    rng = stream(seed, "index.held_out")
    is_tail = _of_groups(rows, TAIL)
    is_tail[:first] = False
    chosen = first + rng.choice(rows.n_samples - first, n - min(n // 2, int(is_tail.sum())), replace=False)
    is_tail[chosen] = False
    tail = np.flatnonzero(is_tail)
    more = rng.choice(tail, min(n - len(chosen), len(tail)), replace=False)
    positions = np.concatenate([chosen, more]).astype(np.int64)
    order = np.argsort(positions)
    return HeldOut(positions=positions[order], uniform=order < len(chosen))


def _of_groups(rows: Rows, names: tuple[str, ...]) -> BoolArray:
    """Return (N,) bool: which rows are of a class of these groups."""
    groups = count_groups(class_counts(rows))
    return np.append(np.any([groups[name] for name in names], axis=0), False)[
        rows.labels
    ]  # the last is for label -1


class Judge:
    """The held-out rows, their true neighbours, and what an index makes of them.

    Parameters
    ----------
    rows : Rows
    held : HeldOut
        Not in the index.
    indexed : (m,) int64
        Positions of the rows that are.
    metric : str
    k : int
    wanted : float

    Notes
    -----
    One exact search: 2 q N D flops in float64.
    """

    def __init__(
        self, rows: Rows, held: HeldOut, indexed: IntArray, *, metric: str, k: int, wanted: float
    ) -> None:
        self.k, self.wanted = k, wanted
        self._queries = rows.take(held.positions)
        self._n_indexed = len(indexed)
        mask = np.zeros(rows.n_samples, np.bool_)
        mask[indexed] = True
        self._ids, distances = ExactIndex(rows, metric).search(self._queries, k, among=mask)
        self._sign = -1 if metric == "l2" else 1
        nearness = self._sign * np.where(self._ids < 0, np.nan, distances)
        self._least = np.nanmin(nearness, axis=1, keepdims=True)
        self._of_tail = (self._ids >= 0) & _of_groups(rows, TAIL)[np.searchsorted(rows.row_ids, self._ids)]
        self._groups = {"all": held.uniform}
        for name in ("many", *TAIL):
            self._groups[name] = _of_groups(rows, (name,))[held.positions]
        self._groups["tail"] = self._groups["medium"] | self._groups["few"]
        self._chooses = np.arange(len(held.positions)) % 2 == 0

    def tune(self, index: RestrictedIndex, plan: IndexPlan, parameters: dict[str, int]) -> bool:
        """Set in `parameters`, which the index reads, the least effort that finds what is wanted; whether any does.

        One parameter at a time by bisection, the others as far up as they go; found is enough where the mean less two
        standard errors is, for "all" and for "tail". Only where that is out of reach are more candidates compared. What
        cannot be reached stays at the most.
        """
        wider = ({**plan.effort, "refine": (level,)} for level in plan.wider)
        return any(self._reach(index, effort, parameters) for effort in (plan.effort, *wider))

    def _reach(
        self, index: RestrictedIndex, effort: Mapping[str, tuple[int, ...]], parameters: dict[str, int]
    ) -> bool:
        parameters |= {name: levels[-1] for name, levels in effort.items()}
        unknown = 1  # what the first finds at the most; the others are then at theirs
        for name, levels in effort.items():
            is_enough = partial(self._is_enough, index, parameters, name)
            at = bisect_left(levels, True, hi=len(levels) - 1 + unknown, key=is_enough)
            parameters[name] = levels[min(at, len(levels) - 1)]
            if at == len(levels):
                return False
            unknown = 0
        return True

    def _is_enough(self, index: RestrictedIndex, parameters: dict[str, int], name: str, level: int) -> bool:
        parameters[name] = level
        recall, _ = self._recall(index, self._chooses)
        for group in ("all", "tail"):
            some = recall[self._groups[group][self._chooses]]
            if len(some) >= _FEWEST and some.mean() - 2 * some.std() / np.sqrt(len(some)) < self.wanted:
                return False
        return True

    def report(self, index: RestrictedIndex) -> RecallReport:
        """Ask with the half that did not choose."""
        asked = ~self._chooses
        reported = {name: members[asked] for name, members in self._groups.items()}
        reported = {name: members for name, members in reported.items() if members.sum() >= _FEWEST}
        per_query, found = self._recall(index, asked)
        recall = {name: float(per_query[members].mean()) for name, members in reported.items()}
        of_tail = self._of_tail[asked]
        return RecallReport(
            k=self.k,
            wanted=self.wanted,
            reached=all(recall[name] >= self.wanted for name in ("all", "tail") if name in recall),
            queries="rows held out of the index",
            n_queries={name: int(members.sum()) for name, members in reported.items()},
            recall=recall,
            tail_neighbors=float(found[of_tail].mean()) if of_tail.any() else None,
            milliseconds=time_queries(index, self._queries[asked], self.k),
            n_indexed=self._n_indexed,
        )

    def _recall(self, index: RestrictedIndex, asked: BoolArray) -> tuple[DoubleArray, BoolArray]:
        """Return of the n queries `asked` the (n,) shares of true neighbours found, and (n, k) which were.

        A share counts answers that are as near as the last true one: of equal rows any will do.
        """
        ids, distances = index.search(self._queries[asked], self.k)
        true_ids, least = self._ids[asked], self._least[asked]
        nearness = self._sign * np.where(ids < 0, -self._sign * np.inf, distances)
        slack = _ROUNDING * np.maximum(np.abs(least), 1)
        right = (ids >= 0) & (nearness >= least - slack)
        found = (true_ids[:, :, None] == ids[:, None, :]).any(axis=2) & (true_ids >= 0)
        return right.sum(axis=1) / (true_ids >= 0).sum(axis=1), found


def exact_report(index: RestrictedIndex, rows: Rows, k: int) -> RecallReport:
    """Time an exact index with some of its own rows; what it finds needs no measuring."""
    some = np.unique(np.linspace(0, rows.n_samples - 1, min(N_TIMED, rows.n_samples)).astype(np.int64))
    return RecallReport(
        k=k,
        wanted=1.0,
        reached=True,
        queries="exact by definition",
        n_queries={},
        recall={"all": 1.0, "tail": 1.0},
        tail_neighbors=1.0,
        milliseconds=time_queries(index, rows.take(some), k),
        n_indexed=rows.n_samples,
    )


def time_queries(index: RestrictedIndex, queries: FloatArray, k: int) -> dict[str, float]:
    """Ask at most 200 of the queries one at a time; return the milliseconds: mean, p50, p95, p99."""
    spent = []
    for query in queries[:N_TIMED, None]:
        started = time.perf_counter()
        index.search(query, k)
        spent.append(1000 * (time.perf_counter() - started))
    quantiles = {f"p{q}": float(np.percentile(spent, q)) for q in (50, 95, 99)} if spent else {}
    return {"mean": float(np.mean(spent)), **quantiles} if spent else {}
