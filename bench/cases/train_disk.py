"""train.disk: a training pass over rows of a store that are read at every pass, against rows kept in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows, write_rows
from bench.objective import made_objective
from bench.timing import Candidate, Workload, WrongResultError

# The trainer's problems A, B and C: (rows, features, classes)
SHAPES: dict[str, dict[str, tuple[int, int, int]]] = {
    "toy": {"toy": (3000, 24, 5)},
    "full": {"A": (100_000, 512, 100), "B": (100_000, 768, 365), "C": (50_000, 768, 1000)},
}


def build(size: Size) -> Iterator[Workload]:
    """Yield A, B and C."""
    for variant, (n_rows, n_features, n_classes) in SHAPES[size].items():
        with tempfile.TemporaryDirectory() as directory:
            yield _workload(Path(directory) / "store", variant, n_rows, n_features, n_classes)


def _workload(path: Path, variant: str, n_rows: int, n_features: int, n_classes: int) -> Workload:
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    made = made_rows(n_rows, n_features, n_classes)
    rows = write_rows(path, made, "float16").split("train").rows(normalize=True)
    moments = class_moments(rows)
    weight = np.random.default_rng(1).standard_normal((n_classes, n_features))
    bias = np.zeros(n_classes)

    kept, read = (
        made_objective(TrainingStream(rows, cache_bytes=cache_bytes), moments) for cache_bytes in (2 << 30, 0)
    )
    expected = kept.evaluate(weight, bias)

    def check(name: str, result: Any) -> None:
        same = np.array_equal(result.grad_weight, expected.grad_weight) and result.loss == expected.loss
        if not same:
            raise WrongResultError(f"{name}: another value or gradient than from rows in memory")

    return Workload(
        variant=variant,
        candidates=(
            Candidate(
                name="read from the store", run=partial(read.evaluate, weight, bias), work=made.n_samples
            ),
            Candidate(
                name="kept in memory",
                run=partial(kept.evaluate, weight, bias),
                work=made.n_samples,
                aim=1.10,
                stretch=1.03,
            ),
        ),
        check=check,
        kind="cost",
        settings={"n_samples": made.n_samples, "n_features": n_features, "n_classes": n_classes},
    )


CASE = Case(
    name="train.disk",
    definition="seconds of a pass over float16 rows read from a store (page cache) / over the same rows kept in memory",
    build=build,
    rounds=5,
    note="Rows are scaled to unit norm as they are read; a thread reads the next block while one is worked on.",
)
