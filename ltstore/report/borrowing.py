"""Who lends to the tail: the smallest borrowing classes, their donors, and the lines between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ltstore.report.data import ReportData
from ltstore.types import Donors, DoubleArray, IntArray

MAX_CLASSES = 40
MAX_DRAWN = 12
MAX_LINES = 3  # of a class
STEP = 24
_LEFT, _RIGHT = 128, 262  # where lines begin and end; names stand outside


def donors_section(data: ReportData) -> dict[str, Any] | None:
    """Return the `graph` of the smallest borrowing classes and the `rows` of a table, None where nobody borrows."""
    donors = data.donors
    if donors is None:
        return None
    borrowers = np.flatnonzero(~donors.head & (donors.weights.sum(axis=1) > 0))
    order = borrowers[np.argsort(data.class_counts[borrowers], kind="stable")]
    rows = [{"class_id": int(c), "donors": _lenders(donors, c)} for c in order[:MAX_CLASSES]]
    return {"rows": rows, "total": len(order), "graph": _graph(donors, order)} if rows else None


def _lenders(donors: Donors, class_id: int) -> list[tuple[int, float, float]]:
    """Return (donor, weight, similarity) of those that lend to a class."""
    used = np.flatnonzero((donors.class_ids[class_id] >= 0) & (donors.weights[class_id] > 0))
    columns = (donors.class_ids, donors.weights, donors.similarity)
    return [
        (int(c), float(w), float(s))
        for c, w, s in zip(*(each[class_id, used] for each in columns), strict=True)
    ]


def _graph(donors: Donors, borrowers: IntArray) -> dict[str, Any]:
    """Place borrowers on the left, donors on the right at the mean height of what they lend: lines cross less."""
    class_ids = borrowers[:MAX_DRAWN]
    lent = [
        (row, *lender)
        for row, c in enumerate(class_ids)
        for lender in sorted(_lenders(donors, c), key=lambda lender: -lender[1])[:MAX_LINES]
    ]
    rows, ids, weights = (np.array(column) for column in list(zip(*lent, strict=True))[:3])
    lenders, place = np.unique(ids, return_inverse=True)
    middle = np.bincount(place, weights * rows) / np.bincount(place, weights)
    rank = np.argsort(np.argsort(middle, kind="stable"))
    n_rows = max(len(class_ids), len(lenders))
    left, right = _heights(len(class_ids), n_rows), _heights(len(lenders), n_rows)[rank]
    ids, shares = donors.class_ids[borrowers], donors.weights[borrowers]
    lends_to = [int(((ids == c) & (shares > 0)).any(axis=1).sum()) for c in lenders]
    most = int(np.argmax(lends_to))
    return {
        "height": STEP * n_rows,
        "borrowers": list(zip(class_ids.tolist(), left.tolist(), strict=True)),
        "lenders": list(zip(lenders.tolist(), right.tolist(), lends_to, strict=True)),
        "most": (int(lenders[most]), lends_to[most]),
        "lines": [
            {"path": _line(left[row], right[to]), "weight": weight}
            for row, to, weight in zip(rows, place, weights, strict=True)
        ],
    }


def _heights(n: int, n_rows: int) -> DoubleArray:
    return np.round((np.arange(n) + 0.5) * STEP * n_rows / max(n, 1), 1)


def _line(start: float, end: float) -> str:
    middle = (_LEFT + _RIGHT) / 2
    return f"M{_LEFT} {start:g}C{middle:g} {start:g} {middle:g} {end:g} {_RIGHT} {end:g}"
