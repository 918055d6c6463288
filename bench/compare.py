"""Two sets of results side by side: the ratio of their ratios, and whether it is more than their spread."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records import latest_records
from bench.run import Record

Key = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Change:
    """How one ratio changed from A to B.

    Attributes
    ----------
    case, variant, size, candidate : str
    before, after : float
        Median ratios.
    change : float
        after / before.
    low, high : float
        The change if either run had been at the near and at the far end of its 20th to 80th percentile.
    better : bool or None
        Whether B is better than A by more than the spread, worse by more, or (None) neither.
    """

    case: str
    variant: str
    size: str
    candidate: str
    before: float
    after: float
    change: float
    low: float
    high: float
    better: bool | None


def read_records(paths: Iterable[Path]) -> list[Record]:
    """Return the records of files of JSON lines; of two with the same key the later one counts.

    Raises
    ------
    ValueError
        A line is not a record; names file and line.
    """
    return list(latest_records(paths, _key, "a benchmark").values())


def compare(before: Sequence[Record], after: Sequence[Record]) -> list[Change]:
    """Return a Change for every ratio that both have."""
    old = {_key(record): record for record in before}
    changes = []
    for record in after:
        other = old.get(_key(record))
        if other is None or not record.get("ratio") or not other.get("ratio"):
            continue
        a, b = other["ratio"], record["ratio"]
        low, high = b["p20"] / a["p80"], b["p80"] / a["p20"]
        better: bool | None = None
        if low > 1 or high < 1:
            better = (low > 1) == (record["kind"] == "speed")
        case, variant, size, candidate = _key(record)
        changes.append(
            Change(
                case=case,
                variant=variant,
                size=size,
                candidate=candidate,
                before=a["p50"],
                after=b["p50"],
                change=b["p50"] / a["p50"],
                low=low,
                high=high,
                better=better,
            )
        )
    return changes


def machines_differ(before: Sequence[Record], after: Sequence[Record]) -> bool:
    """Return whether the two were taken on different machines."""
    return {json.dumps(r["machine"], sort_keys=True) for r in before} != {
        json.dumps(r["machine"], sort_keys=True) for r in after
    }


def _key(record: Record) -> Key:
    return record["case"], record["variant"], record["size"], record["candidate"]
