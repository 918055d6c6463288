"""What a case is, and where the cases are."""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from bench.timing import Workload

Size = Literal["toy", "full"]
Clock = Literal["cpu", "wall"]
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
GROUPS = ("read", "import", "ingest", "search", "sample", "train", "scale", "cli")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question, asked of one or several variants.

    Attributes
    ----------
    name : str
        GROUP.WHAT, with GROUP one of `GROUPS`.
    definition : str
        The ratio in words.
    build : callable
        Called with the size; yields one Workload after another and cleans up between them. Heavy packages
        are imported inside it.
    cores : int or None
        Cores (and threads of the linear algebra) that a full run is pinned to; None leaves all.
    rounds : int
        Timed rounds of a full run.
    clock : {"cpu", "wall"}
        "cpu": seconds of all threads of the process, which on one pinned core are what a wall clock would show
        if nobody else were there. "wall" where processes are started, or where overlap is the question.
    note : str
        What the reader of the figure must know.
    """

    name: str
    definition: str
    build: Callable[[Size], Iterator[Workload]]
    cores: int | None = 1
    rounds: int = 7
    clock: Clock = "cpu"
    note: str = ""

    @property
    def group(self) -> str:
        """The word before the dot."""
        return self.name.partition(".")[0]


def all_cases() -> tuple[Case, ...]:
    """Return the `CASE` of every module of `bench.cases`, by group and name."""
    package = import_module("bench.cases")
    found: list[Case] = [
        import_module(f"bench.cases.{each.name}").CASE for each in pkgutil.iter_modules(package.__path__)
    ]
    return tuple(sorted(found, key=lambda case: (GROUPS.index(case.group), case.name)))


def select_cases(words: Sequence[str]) -> tuple[Case, ...]:
    """Return the cases named by groups or full names, all of them if no word is given.

    Raises
    ------
    KeyError
        A word is neither; names what there is.
    """
    cases = all_cases()
    known = {*GROUPS, *(case.name for case in cases)}
    for word in words:
        if word not in known:
            names = ", ".join(case.name for case in cases)
            raise KeyError(f"no case or group {word!r}; groups: {', '.join(GROUPS)}; cases: {names}")
    return tuple(case for case in cases if not words or case.group in words or case.name in words)
