"""Which kinds of index there are, how large each gets, and which one `auto` takes. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ltstore.cores import physical_bytes
from ltstore.errors import ConfigError

KINDS = ("flat", "hnsw", "ivf", "sq8", "ivfpq")
FLAT_BYTES = 1 << 28
HNSW_ROWS = 2_000_000
_LINKS = 32  # of a row in the graph; twice as many in its lowest layer
_LARGEST_PART = 8  # features that one byte of a product quantiser stands for
_CENTROIDS = 256


@dataclass(frozen=True, kw_only=True)
class IndexPlan:
    """One kind for so many rows.

    Attributes
    ----------
    kind : str
    factory : str
        FAISS's name of it, e.g. "IVF2000,SQ8".
    n_lists : int
        Inverted lists, 0 where the kind has none.
    n_bytes : int
        What the index takes in memory and on disk, to a few percent.
    effort : mapping of str to tuple of int
        Search parameters and their levels, cheapest first; empty where search is exact.
    wider : tuple of int
        More levels of "refine", for rows that the usual ones do not tell apart.
    reason : str
        Why this kind.
    """

    kind: str
    factory: str
    n_lists: int = 0
    n_bytes: int
    effort: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    wider: tuple[int, ...] = ()
    reason: str


def plan_index(
    kind: str,
    n_samples: int,
    n_features: int,
    *,
    recall: float = 0.95,
    memory_bytes: int | None = None,
    on_gpu: bool = False,
) -> IndexPlan:
    """Choose a kind of index, or check the one asked for.

    Parameters
    ----------
    kind : "auto", "flat", "hnsw", "ivf", "sq8" or "ivfpq"
        "auto" takes the first that fits into memory of: flat, up to a quarter of a gigabyte of rows or where recall 1
        is wanted; hnsw up to two million rows (more take hours to link; FAISS has none on GPUs); ivf; sq8; ivfpq.
    n_samples, n_features : int
        N, D.
    recall : float
        Wanted share of true neighbours, in (0, 1].
    memory_bytes : int, optional
        What the index may take; default half of the machine's memory.
    on_gpu : bool

    Raises
    ------
    ConfigError
        Unknown kind, a recall outside (0, 1], or no kind fits.
    """
    if not 0 < recall <= 1:
        raise ConfigError(f"recall must be in (0, 1], found {recall}")
    if kind != "auto":
        if kind not in KINDS:
            raise ConfigError(f"unknown index kind {kind!r}; known: auto, {', '.join(KINDS)}")
        return _plan(kind, n_samples, n_features, "asked for")
    memory = physical_bytes() // 2 if memory_bytes is None else memory_bytes
    room = f"{memory / 1e9:.3g} GB"
    flat = _plan(
        "flat", n_samples, n_features, f"exact, and {n_samples} rows are searched by one matrix product"
    )
    if flat.n_bytes <= min(memory, FLAT_BYTES):
        return flat
    if recall == 1:
        if flat.n_bytes <= memory:
            return replace(flat, reason="recall 1 is wanted, which exact search alone promises")
        raise ConfigError(
            f"recall 1 needs all rows in memory, {flat.n_bytes / 1e9:.3g} GB of {room}: give more memory or less recall"
        )
    tried = [] if on_gpu or n_samples > HNSW_ROWS else ["hnsw"]
    for name in (*tried, "ivf", "sq8", "ivfpq"):
        why = f"{n_samples} rows of {n_features} features, recall {recall:g}: the quickest kind that fits into {room}"
        plan = _plan(name, n_samples, n_features, why)
        if plan.n_bytes <= memory:
            return plan
    raise ConfigError(f"no index of {n_samples} rows fits into {room}: ivfpq needs {plan.n_bytes / 1e9:.3g} GB")


def _powers(first: int, last: int) -> tuple[int, ...]:
    """Return first, 2 first, 4 first, ... and `last` itself."""
    levels = []
    while first < last:
        levels.append(first)
        first *= 2
    return (*levels, last)


def _plan(kind: str, n: int, d: int, reason: str) -> IndexPlan:
    n_lists, effort, row_bytes, more_bytes = 0, {}, 4 * d, 0
    wider: tuple[int, ...] = ()
    if kind == "flat":
        factory = "Flat"
    elif kind == "hnsw":
        factory, row_bytes = f"HNSW{_LINKS},Flat", 4 * d + 8 * _LINKS + 16
        effort = {"ef_search": _powers(16, min(max(n, 16), 4096))}
    else:
        n_lists = max(1, min(round(2 * math.sqrt(n)), n // 39))  # FAISS asks for 39 training rows a list
        effort, code = {"nprobe": _powers(1, n_lists)}, "Flat"
        if kind == "sq8":
            code, row_bytes, effort["refine"] = "SQ8", d, _powers(1, 16)
        elif kind == "ivfpq":
            part = next(size for size in range(min(_LARGEST_PART, d), 0, -1) if d % size == 0)
            code, row_bytes, effort["refine"] = f"PQ{d // part}x8np", d // part, _powers(1, 64)
            more_bytes, wider = 4 * _CENTROIDS * d, (256, 1024)
        factory, row_bytes, more_bytes = f"IVF{n_lists},{code}", row_bytes + 8, more_bytes + 4 * n_lists * d
    n_bytes = n * row_bytes + more_bytes
    return IndexPlan(
        kind=kind,
        factory=factory,
        n_lists=n_lists,
        n_bytes=n_bytes,
        effort=effort,
        wider=wider,
        reason=reason,
    )
