"""Rows of a class in the plane, beside those of the classes it is confused with or borrows from: SVG made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ltstore.report.data import ReportData, RowMap
from ltstore.types import DoubleArray

SIZE = (640, 420)
_EDGE = 14


def map_section(data: ReportData) -> list[dict[str, Any]]:
    """Return for each class that has a map its marks, ready for the template, and what they stand for."""
    return [_map(data, class_id, rows) for class_id, rows in data.row_maps.items() if len(rows.points)]


def _map(data: ReportData, class_id: int, rows: RowMap) -> dict[str, Any]:
    places, mine = _placed(rows.points), rows.class_ids == class_id
    lenders = [] if data.donors is None else data.donors.class_ids[class_id]
    taken = np.zeros(data.n_classes, np.int64)
    if data.labels is not None and data.predictions is not None:
        taken = np.bincount(data.predictions[data.labels == class_id], minlength=data.n_classes)
    others = np.unique(rows.class_ids[~mine & ~rows.synthetic])
    return {
        "class_id": class_id,
        "others": [
            {
                "class_id": int(c),
                "n_taken": int(taken[c]),
                "lends": c in lenders,
                "path": _dots(places[(rows.class_ids == c) & ~rows.synthetic]),
            }
            for c in others[np.argsort(-taken[others], kind="stable")]
        ],
        "real": places[mine & ~rows.synthetic].tolist(),
        "made": places[mine & rows.synthetic].tolist(),
        "method": rows.method,
        "n_shown": len(places),
        "n_rows": rows.n_rows,
    }


def _dots(places: DoubleArray) -> str:
    """Return rows as one path: lines of no length, drawn as dots by their round ends."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in places)


def _placed(points: DoubleArray) -> DoubleArray:
    """Return the points in the drawing's units, to a tenth, filling it; y grows downwards there."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    unit = np.divide(points - low, span, out=np.full_like(points, 0.5), where=span > 0)
    unit[:, 1] = 1 - unit[:, 1]
    placed: DoubleArray = np.round(_EDGE + unit * (np.array(SIZE) - 2 * _EDGE), 1)
    return placed
