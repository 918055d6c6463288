"""Bars of long work on a terminal's stderr: rate, time left, where the time goes; nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    from ltstore.linear import PassRecord
    from ltstore.types import Progress


class Advance:
    """A `ltstore.types.Progress` that moves a bar; what it is to reach may be told later."""

    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update
        self._spent: Counter[str] = Counter()

    def __call__(self, rows: int, seconds: Mapping[str, float]) -> None:
        """Move on by some rows that took some seconds in each stage."""
        self._spent.update(seconds)
        whole = sum(self._spent.values())
        shares = (f"{stage} {100 * value / whole:.0f}%" for stage, value in self._spent.items() if whole)
        self._update(advance=rows, shares=" ".join(shares))

    def expect(self, total: int) -> None:
        """Say how many rows there will be."""
        self._update(total=total)


@contextmanager
def progress(title: str, total: int | None, unit: str = "rows") -> Iterator[Advance]:
    """Show a bar with rate, ETA and where the time goes, on a terminal's stderr; nothing elsewhere."""
    with _bar(title, total, unit) as (advance, _):
        yield advance


@contextmanager
def ingesting(split: str, total: int, device: str = "cpu") -> Iterator[tuple[Progress, Callable[[int], None]]]:
    """Show a bar of images that says how many have failed so far, and how busy the GPU is where there is one."""
    from ltstore.encode import gpu_use

    with _bar(f"ingest {split}", total, "images") as (advance, entitle):
        n_failed = 0

        def retitle() -> None:
            failed = f", {n_failed:,} failed" if n_failed else ""
            share = gpu_use(device) if sys.stderr.isatty() else None
            entitle(f"ingest {split}{failed}" + ("" if share is None else f", GPU {share:.0%}"))

        def on_rows(rows: int, seconds: Mapping[str, float]) -> None:
            advance(rows, seconds)
            retitle()

        def on_failed(n_rows: int) -> None:
            nonlocal n_failed
            n_failed += n_rows
            retitle()

        yield on_rows, on_failed


@contextmanager
def training(n_passes: int | None) -> Iterator[tuple[Advance, Callable[[PassRecord], None]]]:
    """Show a bar of passes with loss, gap, accuracy on the holdout and share of the machine's peak, where known."""
    with _bar("train", n_passes, "passes") as (advance, entitle):
        kept: dict[str, str] = {}

        def on_pass(done: PassRecord) -> None:
            if done.gap == done.gap:  # a pass inside a line search has none
                kept["gap"] = f"gap {done.gap / max(abs(done.value), 1e-300):.1%}"
            if done.holdout_balanced == done.holdout_balanced:
                kept["holdout"] = f"holdout {100 * done.holdout_balanced:.1f}"
            words = ["train", f"loss {done.loss:.4f}", *kept.values(), f"{done.rows_per_second:,.0f} rows/s"]
            if done.share_of_peak == done.share_of_peak:
                words.append(f"{done.share_of_peak:.0%} of peak")
            entitle(" ".join(words))

        yield advance, on_pass


@contextmanager
def _bar(title: str, total: int | None, unit: str) -> Iterator[tuple[Advance, Callable[[str], None]]]:
    """Yield what moves the bar on, and what changes its title."""
    if not sys.stderr.isatty():
        yield Advance(lambda **_: None), lambda title: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    started = time.monotonic()
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _rate_column(started, unit),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[shares]}", style="dim"),
    ]
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, shares="")
        yield Advance(partial(bar.update, task)), lambda title: bar.update(task, description=title)


def _rate_column(started: float, unit: str) -> ProgressColumn:
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.completed / max(time.monotonic() - started, 1e-9):,.0f} {unit}/s")

    return Rate()
