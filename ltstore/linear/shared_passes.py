"""Passes that workers share: each adds up its part of the rows, and the sums meet here in the order of the workers.

What is sent: to each worker once the stream (of a store: its path and row numbers), the fitted sampler and the
objectives; to each worker a pass the points, 8 C (D + 1) bytes a head; back as much, the gradient. A worker keeps the
blocks of its part in memory between passes as the stream would.

The result depends on the number of workers by rounding, and on nothing else of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ltstore.engine import Crew, Engine
from ltstore.linear.device import Evaluator, Placement, worker_evaluator
from ltstore.linear.objective import Evaluation, Objective, PassSums, Point, Totals, without_rows
from ltstore.linear.problem import said_of_synthesis
from ltstore.stream import TrainingStream


class _Source(NamedTuple):
    """What workers are sent once; `sharing` is how many of them have one memory."""

    objectives: Sequence[Objective]
    sharing: int
    placement: Placement


class _Share(NamedTuple):
    """What a worker keeps."""

    stream: TrainingStream
    objectives: Sequence[Objective]
    evaluator: Evaluator | None


class _Sums(NamedTuple):
    """What a worker gives back."""

    totals: Totals
    waited: float
    why_made: str
    rows_are: str


class SharedPasses:
    """Evaluates objectives of one stream as `evaluate_together` does, by workers. Close it.

    Parameters
    ----------
    engine : Engine
    objectives : sequence of Objective
        All that may be asked for.
    placement : Placement
        Of `ltstore.linear.device.resolve_workers_device`.

    Raises
    ------
    ConfigError
        The stream or its sampler cannot be sent to the workers.
    """

    def __init__(self, engine: Engine, objectives: Sequence[Objective], placement: Placement) -> None:
        self._engine = engine
        self._objectives = list(objectives)
        sharing = engine.n_workers if engine.shares_memory else 1
        self._crew: Crew = engine.start(_take_share, _Source(self._objectives, sharing, placement))
        self._why_made = self._rows_are = ""

    def __call__(self, objectives: Sequence[Objective], points: Sequence[Point]) -> list[Evaluation]:
        """Make a pass; the time waited for rows is the mean of the workers'."""
        if (known := without_rows(objectives, points)) is not None:
            return known
        started = time.perf_counter()
        numbers = [next(i for i, own in enumerate(self._objectives) if own is one) for one in objectives]
        sums, waited = PassSums(objectives, points), 0.0
        for found in self._crew.iter_results(_add_up, numbers, list(points)):
            sums.add_totals(found.totals)
            waited += found.waited / self._crew.n_workers
            self._why_made = self._why_made or found.why_made
            self._rows_are = found.rows_are
        return sums.evaluations(started=started, data_seconds=waited)

    def record(self) -> dict[str, Any]:
        """Return what a model's record says of the workers."""
        found: dict[str, Any] = {"workers": {**self._engine.describe(), "restarts": self._crew.restarts}}
        if self._objectives[0].stream.n_synthetic:
            found["synthesis"] = said_of_synthesis(self._why_made)
        if self._rows_are:
            found["device_rows"] = self._rows_are
        return found

    def close(self) -> None:
        """End the workers."""
        self._crew.close()


def _take_share(source: _Source, number: int, n_workers: int) -> _Share:
    stream = source.objectives[0].stream.part(number, n_workers, sharing=source.sharing)
    return _Share(stream, source.objectives, worker_evaluator(source.placement, number))


def _add_up(share: _Share, numbers: Sequence[int], points: Sequence[Point]) -> _Sums:
    sums = PassSums([share.objectives[number] for number in numbers], points)
    waited = sums.add_stream(share.stream, share.evaluator)
    rows_are = "" if share.evaluator is None else share.evaluator.rows_are
    return _Sums(sums.totals, waited, share.stream.why_not_combined(sums.n_columns), rows_are)
