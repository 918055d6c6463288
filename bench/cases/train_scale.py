"""train.scale: a pass by two workers, each with half of the rows, against the same by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.objective import made_objective
from bench.timing import Candidate, Workload, WrongResultError

if TYPE_CHECKING:
    from ltstore.engine import Engine
    from ltstore.linear.objective import Objective, Point

SHAPES: dict[str, dict[str, tuple[int, int, int]]] = {
    "toy": {"toy": (600, 24, 5)},
    "full": {"A": (100_000, 512, 100), "B": (50_000, 768, 365)},
}
KINDS = {"threads": "threads", "processes": "processes", "ray": "Ray workers"}
AIM, STRETCH = 1.8, 1.95


def build(size: Size) -> Iterator[Workload]:
    """Yield a workload for each kind of worker and shape; rows are in memory when the clock starts."""
    from ltstore.linear.device import Placement
    from ltstore.linear.objective import evaluate_together
    from ltstore.linear.shared_passes import SharedPasses
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    on_cpu = Placement("cpu", "float32", "")
    for kind, words in KINDS.items():
        for shape, (n_rows, n_features, n_classes) in SHAPES[size].items():
            settings = {"n_samples": n_rows, "n_features": n_features, "n_classes": n_classes}
            if kind == "ray" and find_spec("ray") is None:
                why = 'ray is not installed: pip install "ltstore[ray]"'
                skipped = {f"two {words}": why}
                yield Workload(
                    variant=f"{kind}, {shape}",
                    candidates=(),
                    check=lambda name, result: None,
                    unit="passes",
                    settings=settings,
                    skipped=skipped,
                )
                continue
            rows = made_rows(n_rows, n_features, n_classes)
            moments = class_moments(rows)
            stream = TrainingStream(rows)
            objective = made_objective(stream, moments)
            weight = np.random.default_rng(1).standard_normal((n_classes, n_features))
            point = weight, np.zeros(n_classes)
            expected = evaluate_together([objective], [point])[0]
            with ExitStack() as stack:
                passes = {}
                for number, count in ((2, "two"), (1, "one")):
                    engine = stack.enter_context(_engine(kind, number))
                    passes[count] = stack.enter_context(closing(SharedPasses(engine, [objective], on_cpu)))
                yield Workload(
                    variant=f"{kind}, {shape}",
                    candidates=(
                        Candidate(name=f"two {words}", run=partial(_pass, passes["two"], objective, point)),
                        Candidate(
                            name=f"one of {words}",
                            run=partial(_pass, passes["one"], objective, point),
                            aim=AIM,
                            stretch=STRETCH,
                        ),
                    ),
                    check=partial(_check, expected),
                    unit="passes",
                    settings=settings,
                )


def _engine(kind: str, n_workers: int) -> Any:
    from ltstore.engine import LocalEngine, RayEngine

    engine: Engine = (
        RayEngine("local", n_workers, {"CPU": 0.5}) if kind == "ray" else LocalEngine(n_workers, kind)
    )
    return engine


def _pass(passes: Any, objective: Objective, point: Point) -> Any:
    return passes([objective], [point])[0]


def _check(expected: Any, name: str, found: Any) -> None:
    """Compare with the pass that is made without workers."""
    error = np.abs(found.grad_weight - expected.grad_weight).max() / np.abs(expected.grad_weight).max()
    if abs(found.loss - expected.loss) > 1e-5 * abs(expected.loss) or error > 1e-4:
        raise WrongResultError(
            f"{name}: loss {found.loss} for {expected.loss}, gradient off by {error:.1e} of its size"
        )


CASE = Case(
    name="train.scale",
    definition="passes/s of two workers that share the rows / passes/s of one worker with all of them",
    build=build,
    cores=2,
    clock="wall",
    note="Needs two cores that nobody else uses: on a shared machine the second worker gets what others leave.",
)
