"""Time candidates against each other: correctness first, then turn by turn, so that a busy machine hits all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

LEAST_ROUNDS = 5
MEMORY_ROUNDS = 2  # peaks hardly vary, and what makes them is large; what is estimated takes long
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Kind = Literal["speed", "cost", "memory", "estimate"]


class WrongResultError(ValueError):
    """A candidate's answer is not the one that all candidates must give; it is refused."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to do the work.

    Attributes
    ----------
    name : str
    run : callable
        Does the work once and returns what `check` looks at.
    work : float
        Units of work of one run (rows, images, flops), so that candidates of unequal work compare by speed.
    peer : str
        The word after --against that chooses it, "" for ltstore and for bare baselines, which always run.
    aim, stretch : float, optional
        Of the subject's ratio to this candidate.
    figure : str
        Of kind "estimate": the attribute of the subject's answer that this one's answer, a number, is said of.
    """

    name: str
    run: Callable[[], Any]
    work: float = 1.0
    peer: str = ""
    aim: float | None = None
    stretch: float | None = None
    figure: str = ""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one variant of a case compares.

    Attributes
    ----------
    variant : str
    candidates : tuple of Candidate
        The first is the subject; each other gives one ratio, subject / candidate.
    check : callable
        Called with a candidate's name and what its run returned; raises WrongResultError.
    kind : {"speed", "cost", "memory", "estimate"}
        "speed": work per second of the subject / that of the candidate, higher is better. "cost": seconds
        of the subject / seconds of the candidate, lower is better. "memory": the `peak_bytes` that the subject's
        answer says / those of the candidate's, lower is better. "estimate": what the subject took / what the
        candidate said that it would take at most.
    unit : str
        What `work` counts.
    unit_bytes : int, optional
        Bytes of one of them, where a rate in GB/s says something.
    settings : mapping
        Sizes and whatever else decides the figure; JSON values.
    skipped : mapping of str to str
        Candidates that cannot run here, and why.
    """

    variant: str
    candidates: tuple[Candidate, ...]
    check: Callable[[str, Any], None]
    kind: Kind = "speed"
    unit: str = "rows"
    unit_bytes: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The 20th, 50th and 80th percentile of the rounds."""

    p20: float
    p50: float
    p80: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One candidate's figures.

    Attributes
    ----------
    candidate : str
    seconds : Spread or None
        None where it was refused or skipped.
    ratio : Spread or None
        The subject's ratio to this candidate, pair by pair; None for the subject itself.
    peak_bytes : int or None
        How far one run raised the resident memory; None where the system does not say. Of kind "memory": the
        most that an answer says.
    refused : str
        Why it was not timed, "" where it was.
    rounds : int
    said : float or None
        Of kind "estimate": the median of the candidate's answers.
    """

    candidate: str
    seconds: Spread | None
    ratio: Spread | None
    peak_bytes: int | None
    refused: str = ""
    rounds: int = 0
    said: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Return the percentiles of at least one value, interpolated linearly."""
    if len(values) == 1:
        return Spread(p20=values[0], p50=values[0], p80=values[0])
    cuts = statistics.quantiles(values, n=10, method="inclusive")
    return Spread(p20=cuts[1], p50=statistics.median(values), p80=cuts[7])


def measure(
    workload: Workload, *, rounds: int = LEAST_ROUNDS, clock: Callable[[], float] = time.perf_counter
) -> list[Measurement]:
    """Check every candidate, then time those that are right, turn by turn.

    Parameters
    ----------
    workload : Workload
    rounds : int
        Timed runs of each, at least `LEAST_ROUNDS`; of kinds "memory" and "estimate" there are `MEMORY_ROUNDS`.
    clock : callable
        Seconds.

    Returns
    -------
    list of Measurement
        In the order of the candidates; a refused one says why.

    Raises
    ------
    WrongResultError
        The subject itself is wrong: there is nothing to compare.
    ValueError
        Fewer than `LEAST_ROUNDS` rounds.

    Notes
    -----
    The checking run warms the candidate up, and its peak memory is the one reported. Every round runs all
    candidates, beginning with another one each time, and its ratios are of times taken seconds apart.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"a median needs at least {LEAST_ROUNDS} rounds, found {rounds}")
    if workload.kind in ("memory", "estimate"):
        rounds = MEMORY_ROUNDS
    refused: dict[str, str] = {}
    peaks: dict[str, int | None] = {}
    for position, candidate in enumerate(workload.candidates):
        before = _reset_peak()
        result = candidate.run()
        peaks[candidate.name] = _peak_since(before)
        try:
            workload.check(candidate.name, result)
        except WrongResultError as err:
            if position == 0:
                raise
            refused[candidate.name] = str(err)
        del result
    right = [each for each in workload.candidates if each.name not in refused]
    seconds: dict[str, list[float]] = {each.name: [] for each in right}
    answers: dict[str, list[Any]] = {each.name: [] for each in right}
    gc.collect()
    for number in range(rounds):
        turn = number % len(right)
        for candidate in right[turn:] + right[:turn]:
            began = clock()
            kept = candidate.run()
            seconds[candidate.name].append(clock() - began)
            if workload.kind == "memory":
                answers[candidate.name].append(kept.peak_bytes)
            elif workload.kind == "estimate":
                answers[candidate.name].append(kept)
            del kept  # freeing is not part of the work
    subject = workload.candidates[0]
    costs: dict[str, list[Any]] = answers if workload.kind in ("memory", "estimate") else seconds
    found = []
    for candidate in workload.candidates:
        if candidate.name in refused:
            found.append(
                Measurement(
                    candidate=candidate.name,
                    seconds=None,
                    ratio=None,
                    peak_bytes=None,
                    refused=refused[candidate.name],
                )
            )
            continue
        ratio = None
        if candidate is not subject:
            pairs = zip(costs[subject.name], costs[candidate.name], strict=True)
            ratio = spread([_ratio(workload.kind, subject, candidate, mine, its) for mine, its in pairs])
        found.append(
            Measurement(
                candidate=candidate.name,
                seconds=spread(seconds[candidate.name]),
                ratio=ratio,
                peak_bytes=int(max(costs[candidate.name]))
                if workload.kind == "memory"
                else peaks[candidate.name],
                rounds=rounds,
                said=statistics.median(costs[candidate.name]) if candidate.figure else None,
            )
        )
    return found


def _ratio(kind: Kind, subject: Candidate, candidate: Candidate, mine: Any, its: Any) -> float:
    if kind == "estimate":
        return float(getattr(mine, candidate.figure) / its)
    if kind != "speed":
        return float(mine / its)
    return float((subject.work / mine) / (candidate.work / its))


def _resident(key: str) -> int | None:
    try:
        text = _STATUS.read_text()
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith(key)), None)
    return None if line is None else int(line.split()[1]) * 1024


def _reset_peak() -> int | None:
    """Set the peak of resident memory back to what is resident now, and return that (Linux only)."""
    gc.collect()
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return None
    return _resident("VmRSS:")


def _peak_since(before: int | None) -> int | None:
    peak = _resident("VmHWM:")
    return None if before is None or peak is None else max(peak - before, 0)
