"""search.exact: exact search by blocks against the matrix products it cannot do without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.timing import Candidate, Workload, WrongResultError

SHAPES = {"toy": (3000, 16), "full": (40_000, 512)}
N_QUERIES = {"toy": (8,), "full": (256, 1024)}
BLOCK = 4096
K = 10


def build(size: Size) -> Iterator[Workload]:
    """Yield batches of queries; unit rows, cosine, float64 products."""
    from ltstore.neighbors import ExactIndex

    rows = made_rows(*SHAPES[size], 100)
    n_rows, n_features = rows.n_samples, rows.n_features
    index = ExactIndex(rows)
    for n_queries in N_QUERIES[size]:
        queries = rows.read(0, n_queries)
        wide = queries.astype(np.float64)
        block = rows.read(0, min(BLOCK, n_rows)).astype(np.float64)
        out = np.empty((n_queries, len(block)))
        truth = wide @ rows.read(0, n_rows).astype(np.float64).T
        expected = -np.sort(-truth, axis=1)[:, :K]

        def ours(queries: Any = queries) -> Any:
            return index.search(queries, K)

        def products(wide: Any = wide, block: Any = block, out: Any = out) -> Any:
            for start in range(0, n_rows, len(block)):
                n = min(len(block), n_rows - start)
                np.matmul(wide, block[:n].T, out=out[:, :n])
            return out[:, :n]

        def check(
            name: str, result: Any, truth: Any = truth, expected: Any = expected, n: int = n_queries
        ) -> None:
            if name == "matrix products":
                last = (n_rows - 1) % min(BLOCK, n_rows) + 1
                right = np.allclose(result, truth[:, :last])
            else:
                ids, distances = result
                right = np.allclose(distances, expected, atol=1e-5)
                right = right and np.allclose(np.take_along_axis(truth, ids, axis=1), expected, atol=1e-5)
            if not right:
                raise WrongResultError(f"{name}: not the nearest {K} of {n} queries")

        yield Workload(
            variant=f"{n_queries} queries",
            candidates=(
                Candidate(name="ExactIndex.search", run=ours, work=n_queries),
                Candidate(name="matrix products", run=products, work=n_queries, aim=1.3, stretch=1.15),
            ),
            check=check,
            kind="cost",
            unit="queries",
            settings={"n_samples": n_rows, "n_features": n_features, "k": K, "n_queries": n_queries},
        )


CASE = Case(
    name="search.exact",
    definition="seconds of ExactIndex.search / seconds of its float64 matrix products alone",
    build=build,
    rounds=11,
    note="The products are of one block that stays where it is; the search also reads and widens every block.",
)
