"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.run import loses, met

if TYPE_CHECKING:
    from bench.case import Case
    from bench.compare import Change
    from bench.run import Record


def number(value: float) -> str:
    """Return three significant digits, never in exponent form."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(record: Record) -> str:
    """Return "met", "missed" or, without an aim, who is faster."""
    reached = met(record)
    if reached is not None:
        return "met" if reached else "missed"
    return "faster than ltstore" if loses(record) else ""


def seconds(value: float) -> str:
    """Return a time in the unit that reads best."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1:
            return f"{number(value * factor)} {unit}"
    return f"{number(value * 1e9)} ns"


def rates(record: Record) -> tuple[str, str]:
    """Return how much was done a second, in units and in GB/s; "" where that says nothing."""
    per_second = record.get("work", 0) / record["seconds"]["p50"] if record["kind"] == "speed" else 0
    unit, n_bytes = record["unit"], record.get("unit_bytes")
    rate = f"{number(per_second)} {unit}/s" if per_second and unit != "bytes" else ""
    return rate, number(per_second * n_bytes / 1e9) if per_second and n_bytes else ""


def cases(found: Sequence[Case]) -> None:
    """Print every case with its definition."""
    width = max(len(case.name) for case in found)
    for case in found:
        print(f"{case.name:<{width}}  {case.definition}")


class LiveTable:
    """Collects records and prints one table per workload as soon as it is whole."""

    def __init__(self) -> None:
        self._rows: list[Record] = []

    def add(self, record: Record) -> None:
        """Take one record; records of a workload come one after another."""
        if self._rows and self._title(self._rows[0]) != self._title(record):
            self.end()
        self._rows.append(record)

    def end(self) -> None:
        """Print what has been collected."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        if not self._rows:
            return
        grid = Table(
            title=self._title(self._rows[0]), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for name in ("candidate", "seconds", "rate", "GB/s", "peak MB", "ratio", "p20..p80", "aim", ""):
            grid.add_column(name, justify="left" if name == "candidate" else "right")
        for record in self._rows:
            grid.add_row(*_cells(record))
        Console().print(grid)
        self._rows = []

    @staticmethod
    def _title(record: Record) -> str:
        units = {"cost": "seconds", "memory": "peak bytes", "estimate": "taken"}
        unit = units.get(record["kind"], f"{record['unit']}/s")
        return f"{record['case']}, {record['variant']} ({unit} of {record['subject']} / candidate)"


def _cells(record: Record) -> tuple[str, ...]:
    why = record.get("skipped") or record.get("refused")
    if why:
        word = "skipped" if record.get("skipped") else "REFUSED"
        return (record["candidate"], "", "", "", "", "", "", "", f"{word}: {why}")
    ratio, aim, peak = record["ratio"], record["aim"], record["peak_bytes"]
    return (
        record["candidate"],
        seconds(record["seconds"]["p50"]),
        *rates(record),
        "" if peak is None else f"{peak / 1e6:,.0f}",
        "" if ratio is None else number(ratio["p50"]),
        "" if ratio is None else f"{number(ratio['p20'])}..{number(ratio['p80'])}",
        "" if aim is None else number(aim),
        verdict(record),
    )


def changes(found: Sequence[Change]) -> None:
    """Print how ratios changed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("case", "variant", "candidate", "A", "B", "B / A", "spread", ""):
        grid.add_column(name, justify="left" if name in ("case", "variant", "candidate", "") else "right")
    words = {True: "better", False: "worse", None: "within the spread"}
    for each in found:
        span = f"{number(each.low)}..{number(each.high)}"
        figures = (number(each.before), number(each.after), number(each.change), span)
        grid.add_row(each.case, each.variant, each.candidate, *figures, words[each.better])
    Console().print(grid)
