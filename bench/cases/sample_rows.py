"""sample.rows: synthetic rows a second, against NumPy drawing nothing but their normals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.timing import Candidate, Workload, WrongResultError

SHAPES = {"toy": (400, 24, 5, 64), "full": (10_000, 768, 50, 4096)}


def build(size: Size) -> Iterator[Workload]:
    """Yield the one workload: neighbor-gauss of rank 16, rows of the smallest class with donors."""
    from ltstore.neighbors import class_donors
    from ltstore.sampling import make_sampler
    from ltstore.stats import class_moments

    n_rows, n_features, n_classes, n_made = SHAPES[size]
    rows = made_rows(n_rows, n_features, n_classes)
    moments = class_moments(rows, rank=16)
    donors = class_donors(moments.means, moments.counts)
    sampler = make_sampler("neighbor-gauss").fit(rows, moments, donors)
    tail = n_classes - 1
    rng = np.random.default_rng(0)

    def sampled() -> Any:
        return sampler.sample(tail, 0, n_made, seed=0)

    def normals() -> Any:
        return rng.standard_normal((n_made, n_features), np.float32)

    def normals_double() -> Any:
        return rng.standard_normal((n_made, n_features))

    def check(name: str, result: Any) -> None:
        if name != "neighbor-gauss":
            if result.shape != (n_made, n_features) or abs(float(result.mean())) > 0.2:
                raise WrongResultError(f"{name}: not standard normals of that shape")
            return
        again = sampler.sample(tail, n_made // 3, n_made // 2, seed=0)
        unit = np.allclose(np.linalg.norm(result.X, axis=1), 1, atol=1e-5)
        if result.X.shape != (n_made, n_features) or not unit or (result.labels != tail).any():
            raise WrongResultError(f"{name}: not {n_made} unit rows of class {tail}")
        if not np.array_equal(again.X, result.X[n_made // 3 : n_made // 2]):
            raise WrongResultError(f"{name}: a row depends on the slice it is drawn in")

    yield Workload(
        variant="rank 16",
        candidates=(
            Candidate(name="neighbor-gauss", run=sampled, work=n_made),
            Candidate(name="NumPy normals, float32", run=normals, work=n_made, aim=3.0, stretch=5.0),
            Candidate(name="NumPy normals, float64", run=normals_double, work=n_made),
        ),
        check=check,
        settings={"n_features": n_features, "n_classes": n_classes, "rank": 16, "n_made": n_made},
    )


CASE = Case(
    name="sample.rows",
    definition="materialised neighbor-gauss rows/s (rank 16, D = 768) / rows/s of NumPy's standard normals alone",
    build=build,
)
