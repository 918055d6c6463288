"""Indices, neighbours and donors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ltstore_cli._render.terminal import note, pairs, settings, size, table

if TYPE_CHECKING:
    from ltstore.workflow import IndexResult


def index(result: IndexResult) -> None:
    """Print what an index is and what it finds."""
    report = result.report or {}
    recall, spent = report.get("recall", {}), report.get("milliseconds", {})
    found = ", ".join(
        f"{name} {value:.3f}" + (f" of {report['n_queries'][name]:,}" if report["n_queries"] else "")
        for name, value in recall.items()
    )
    pairs(
        [
            ("index", result.path),
            ("done", result.done),
            ("kind", f"{result.kind} ({result.reason})"),
            ("metric", result.metric),
            ("device", result.device),
            ("effort", settings(result.parameters) if result.parameters else "all rows"),
            ("recall", f"{found} ({report['queries']})" if report else "not measured: too few rows"),
            ("one query", ", ".join(f"{name} {value:.2f} ms" for name, value in spent.items()) or None),
            ("rows", f"{result.n_rows:,} x {result.n_features}"),
            ("size", size(result.n_bytes)),
            ("seconds", f"{result.seconds:.2f}"),
            *([("graph", result.graph)] if result.graph else []),
        ]
    )
    if report and not report["reached"]:
        note(f"recall {report['wanted']:g} was not reached: --kind flat is exact, and --memory may allow more")


def neighbors(name: str, answers: Sequence[Mapping[str, Any]]) -> None:
    """Print the neighbours of one query."""
    table(
        ("rank", "class", "class rows", "group", "similarity", "row", "key"),
        [
            (
                i + 1,
                a["class_name"],
                a["class_count"],
                a["group"],
                f"{a['similarity']:.4f}",
                a["row_id"],
                a["key"],
            )
            for i, a in enumerate(answers)
        ],
        title=name,
        left=("class", "group", "key"),
    )


def donors(classes: Sequence[Mapping[str, Any]], by: str, limit: int) -> None:
    """Print the donors of the smallest classes."""
    shown = classes[: limit or None]
    table(
        ("class", "rows", "group", "donors (share, similarity)"),
        [
            (
                c["class"],
                c["rows"],
                c["group"],
                ", ".join(f"{d['class']} ({d['weight']:.0%}, {d['similarity']:.2f})" for d in c["donors"]),
            )
            for c in shown
        ],
        left=("class", "group", "donors (share, similarity)"),
    )
    if not classes:
        note("no class needs a donor: no class is much larger than another")
    note(f"found by {by}; {len(shown)} of {len(classes)} borrowing classes shown")
