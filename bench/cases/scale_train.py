"""scale.train: what moments, training and evaluation took, and what `ltstore estimate` says they take at most."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.case import Case, Size
from bench.data import made_rows, write_rows
from bench.scaling import MOST_TESTED, N_PASSES, Taken, train_apart
from bench.timing import Candidate, Workload, WrongResultError

Shape = tuple[int, int, int]
SHAPES: dict[str, tuple[Shape, ...]] = {
    "toy": ((600, 24, 5),),
    "full": ((10_000, 384, 100), (100_000, 512, 100), (100_000, 768, 365), (30_000, 768, 1000)),
}
HOW: dict[str, Any] = {"device": "cpu", "precision": "float32"}  # as the run does, which goes to tolerance 0
STEPS = ("moments", "train", "evaluate")
_OFF = {"seconds": 1000.0, "bytes": 10.0}  # times, beyond which an estimate is none


def build(size: Size) -> Iterator[Workload]:
    """Yield a workload for each shape, its rows in a store."""
    for n_rows, n_features, n_classes in SHAPES[size]:
        with tempfile.TemporaryDirectory() as directory:
            store = Path(directory) / "store"
            rows = made_rows(n_rows, n_features, n_classes)
            write_rows(store, rows, "float16")
            shape = rows.n_samples, n_features, n_classes
            del rows
            yield workload(shape, store)


def workload(shape: Shape, store: Path | None) -> Workload:
    """Return a run of so many rows, features and classes beside what is said of it."""
    estimates = [
        Candidate(name=f"{name}, at most", run=partial(_seconds, shape, name), figure=name, aim=1.0)
        for name in STEPS
    ]
    estimates.append(
        Candidate(name="memory, at most", run=partial(_memory, shape), figure="peak_bytes", aim=1.0)
    )
    if store is not None:
        run: Callable[[], Any] = partial(_disk, shape)
        estimates.append(Candidate(name="disk, at most", run=run, figure="disk_bytes", aim=1.0))
    latest: list[Taken] = []

    def check(name: str, result: Any) -> None:
        if isinstance(result, Taken):
            latest[:] = [result]
            if result.n_failed:
                raise WrongResultError(f"{name}: a run that did not do what it was asked for")
            return
        figure = next(each.figure for each in estimates if each.name == name)
        took, off = getattr(latest[0], figure), _OFF["bytes" if figure.endswith("bytes") else "seconds"]
        if not took / off < result < took * off:
            raise WrongResultError(f"{name}: {result} said of {took}")

    n_rows, n_features, n_classes = shape
    where = "made as they are read" if store is None else "in a store"
    return Workload(
        variant=f"{n_rows:,} x {n_features:,}, {n_classes:,} classes",
        candidates=(Candidate(name="run", run=partial(train_apart, shape, store)), *estimates),
        check=check,
        kind="estimate",
        settings={
            "n_samples": n_rows,
            "n_features": n_features,
            "n_classes": n_classes,
            "passes": N_PASSES,
            "tested": min(n_rows, MOST_TESTED),
            "rows": where,
        },
    )


def _estimate(shape: Shape) -> Any:
    """Return the estimate, by rates of this moment in the seconds that the run is measured in."""
    from ltstore.workflow import estimate
    from ltstore.workflow.estimation.rates import measure_rates

    rates = measure_rates(shape[1], shape[2], clock=time.process_time)
    return estimate(*shape, passes=N_PASSES, n_test=min(shape[0], MOST_TESTED), rates=rates, **HOW)


def _seconds(shape: Shape, name: str) -> float:
    return float(_estimate(shape).step(name).seconds.high)


def _memory(shape: Shape) -> int:
    return int(max(_estimate(shape).step(name).memory_bytes for name in STEPS))


def _disk(shape: Shape) -> int:
    return int(_estimate(shape).step("ingest").disk_bytes)


CASE = Case(
    name="scale.train",
    definition="CPU seconds, peak bytes and bytes on disk of a run / what `ltstore estimate` says of it at most",
    build=build,
    clock="wall",
    note="A run is a process of its own on one core: class moments, three passes (the first reads no row), evaluation. "
    "The low end of the seconds is half of the high end or a little more.",
)
