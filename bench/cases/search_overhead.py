"""search.overhead: FaissIndex.search against the same FAISS index called bare, for every kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_rows
from bench.timing import Candidate, Workload, WrongResultError

TOY = (2000, 16)
LISTED = (140_000, 512)  # beyond what `auto` searches exactly
SHAPES = {"flat": (100_000, 512), "hnsw": (40_000, 512), "ivf": LISTED, "sq8": LISTED, "ivfpq": LISTED}
EFFORT = {
    "flat": {},
    "hnsw": {"ef_search": 64},
    "ivf": {"nprobe": 16},
    "sq8": {"nprobe": 16, "refine": 2},
    "ivfpq": {"nprobe": 16, "refine": 8},
}
N_QUERIES = {"toy": (8, 1), "full": (256, 1)}
N_SINGLE = 24  # asked one after the other
K = 10


def build(size: Size) -> Iterator[Workload]:
    """Yield a batch of queries, then one query at a time, of each kind; unit rows, cosine, on the CPU."""
    from ltstore.neighbors import build_index

    for kind, shape in SHAPES.items():
        rows = made_rows(*(TOY if size == "toy" else shape), n_classes=100)
        X = rows.read(0, rows.n_samples)
        index = build_index(rows, kind=kind, metric="cosine", device="cpu", n_queries=0)
        index.parameters = EFFORT[kind]
        for n_queries in N_QUERIES[size]:
            yield _workload(index, X, n_queries)


def _workload(index: Any, X: Any, n_queries: int) -> Workload:
    asked = X[: max(n_queries, N_SINGLE)].copy()
    batches = np.split(asked, len(asked) // n_queries)
    # The very same object: a second copy of the rows lies elsewhere in memory, which alone moved the ratio by a fifth.
    bare, options = index._index, _options(index)
    if "refine" in index.parameters:
        bare = _refining(bare, X)

    def ours() -> Any:
        return [index.search(queries, K) for queries in batches]

    def theirs() -> Any:
        return [bare.search(queries, K, **options)[::-1] for queries in batches]

    expected_ids, expected = map(np.concatenate, zip(*theirs(), strict=True))
    truth = np.einsum("qkd,qd->qk", X[expected_ids], asked)

    def check(name: str, result: Any) -> None:
        ids, distances = map(np.concatenate, zip(*result, strict=True))
        found = np.einsum("qkd,qd->qk", X[ids], asked)
        # Equal neighbours, but for two that float32 cannot tell apart.
        if not np.allclose(distances, truth, atol=1e-5) or not np.allclose(found, expected, atol=1e-5):
            raise WrongResultError(f"{name}: not the {K} rows that bare faiss finds")

    return Workload(
        variant=f"{index.kind}, {n_queries} {'queries' if n_queries > 1 else 'query'}",
        candidates=(
            Candidate(name="FaissIndex.search", run=ours, work=len(asked)),
            Candidate(name="bare faiss", run=theirs, work=len(asked), peer="faiss", aim=1.05, stretch=1.02),
        ),
        check=check,
        kind="cost",
        unit="queries",
        settings={
            "n_samples": len(X),
            "n_features": X.shape[1],
            "k": K,
            "n_queries": n_queries,
            **index.parameters,
        },
    )


def _options(index: Any) -> dict[str, Any]:
    """Return FAISS's own search parameters of the same effort."""
    import faiss

    known: Any = faiss
    if "ef_search" in index.parameters:
        return {"params": known.SearchParametersHNSW(efSearch=index.parameters["ef_search"])}
    if "nprobe" not in index.parameters:
        return {}
    lists = known.SearchParametersIVF(nprobe=index.parameters["nprobe"])
    if "refine" not in index.parameters:
        return {"params": lists}
    return {
        "params": known.IndexRefineSearchParameters(
            k_factor=index.parameters["refine"], base_index_params=lists
        )
    }


def _refining(index: Any, X: Any) -> Any:
    """Return FAISS's own index that keeps all rows beside the coded ones and lets them decide."""
    import faiss

    known: Any = faiss
    flat = known.IndexFlatIP(X.shape[1])
    flat.add(X)
    return known.IndexRefine(index, flat)


CASE = Case(
    name="search.overhead",
    definition="seconds of FaissIndex.search / seconds of the same FAISS index called bare",
    build=build,
    rounds=31,
    note=(
        "ltstore validates and normalises the queries, the bare call gets them ready. Single queries are 24 different "
        "ones in a row: one asked again and again finds its rows in the cache. sq8 and ivfpq: beside FAISS's "
        "IndexRefine, which holds all rows in memory once more; ltstore reads the candidates from the rows themselves."
    ),
)
