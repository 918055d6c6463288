"""Candidates are checked before they are timed, and take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.timing import Candidate, Kind, Workload, WrongResultError, measure, spread


def workload(*candidates: Candidate, kind: Kind = "speed") -> Workload:
    def check(name: str, result: Any) -> None:
        if result != 42:
            raise WrongResultError(f"{name} gave {result}")

    return Workload(variant="made", candidates=candidates, check=check, kind=kind)


class Clock:
    """Seconds that a candidate passes by itself."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float) -> Callable[[], int]:
        times: Iterator[float] = iter(seconds)

        def run() -> int:
            self.now += next(times, seconds[-1])
            return 42

        return run


def test_a_wrong_candidate_is_refused_and_never_timed() -> None:
    calls = []

    def wrong() -> int:
        calls.append(1)
        return 41

    found = measure(workload(Candidate(name="right", run=lambda: 42), Candidate(name="wrong", run=wrong)))
    assert [each.candidate for each in found] == ["right", "wrong"]
    assert found[1].refused == "wrong gave 41"
    assert found[1].ratio is None
    assert found[1].seconds is None
    assert len(calls) == 1


def test_a_wrong_subject_ends_the_run() -> None:
    with pytest.raises(WrongResultError, match="ours gave 7"):
        measure(workload(Candidate(name="ours", run=lambda: 7), Candidate(name="theirs", run=lambda: 42)))


def test_ratios_are_paired_by_round_and_the_median_of_them() -> None:
    clock = Clock()
    # The checking run comes first. Round by round the machine is slow for both: the ratio does not move.
    ours = Candidate(name="ours", run=clock.taking(100, 1, 2, 4, 8, 16))
    theirs = Candidate(name="theirs", run=clock.taking(100, 3, 6, 12, 24, 48))
    found = measure(workload(ours, theirs), clock=clock)
    assert found[0].ratio is None
    assert found[0].seconds is not None
    assert found[0].seconds.p50 == 4
    assert found[1].ratio is not None
    assert (found[1].ratio.p20, found[1].ratio.p50, found[1].ratio.p80) == pytest.approx((3, 3, 3))
    cost = measure(workload(ours, theirs, kind="cost"), clock=clock)[1].ratio
    assert cost is not None
    assert cost.p50 == pytest.approx(1 / 3)


def test_speed_counts_the_work() -> None:
    clock = Clock()
    found = measure(
        workload(
            Candidate(name="ours", run=clock.taking(2), work=10),
            Candidate(name="theirs", run=clock.taking(1), work=20),
        ),
        clock=clock,
    )
    assert found[1].ratio is not None
    assert found[1].ratio.p50 == pytest.approx(0.25)


def test_every_round_begins_with_another_candidate() -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], int]:
        def note() -> int:
            order.append(name)
            return 42

        return note

    measure(workload(*(Candidate(name=name, run=run(name)) for name in "abc")))
    assert order[:3] == list("abc")  # the checking runs
    assert ["".join(order[i : i + 3]) for i in range(3, 18, 3)] == ["abc", "bca", "cab", "abc", "bca"]


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 rounds, found 3"):
        measure(workload(Candidate(name="ours", run=lambda: 42)), rounds=3)


def test_percentiles() -> None:
    found = spread([float(value) for value in range(11)])
    assert (found.p20, found.p50, found.p80) == (2, 5, 8)
    assert spread([3.0]).p80 == 3.0


def test_peak_memory_is_that_of_the_candidate() -> None:
    import mmap

    def large() -> int:
        pages = mmap.mmap(-1, 40_000_000)  # new pages: an allocator may give out ones that are resident already
        for start in range(0, len(pages), 4096):
            pages[start] = 1
        pages.close()
        return 42

    found = measure(workload(Candidate(name="large", run=large), Candidate(name="small", run=lambda: 42)))
    if found[0].peak_bytes is None or found[1].peak_bytes is None:
        pytest.skip("this system does not tell peaks of memory")
    assert 38e6 < found[0].peak_bytes < 60e6
    assert found[1].peak_bytes < 10e6
