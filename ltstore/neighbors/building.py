"""Train an index on a sample, fill it block by block, hold rows out to tune it, and go on where it was left."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ltstore.errors import ConfigError, IndexStaleError
from ltstore.neighbors.faiss_index import TRAINING_ROWS, FaissIndex, new_index, place_index, resolve_device
from ltstore.neighbors.kinds import plan_index
from ltstore.neighbors.metric import validate_metric
from ltstore.neighbors.recall import HeldOut, Judge, exact_report, hold_out
from ltstore.neighbors.saved import load_partial, save_index
from ltstore.rng import stream
from ltstore.rows import iter_blocks
from ltstore.types import BoolArray, FloatArray, Progress, Rows, no_progress

N_QUERIES = 1000
CHECKPOINT_SECONDS = 30.0
_PATIENCE = 10  # a checkpoint may take a tenth of the time
_LEAST_TRAINED = 4096

logger = logging.getLogger(__name__)


def build_index(
    rows: Rows,
    *,
    kind: str = "flat",
    metric: str = "cosine",
    device: str = "auto",
    recall: float = 0.95,
    k: int = 10,
    memory_bytes: int | None = None,
    n_queries: int = N_QUERIES,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    progress: Progress = no_progress,
) -> FaissIndex:
    """Build an index, reading the rows in blocks.

    Parameters
    ----------
    rows : Rows
    kind : "auto", "flat", "hnsw", "ivf", "sq8" or "ivfpq"
        See `ltstore.neighbors.kinds.plan_index`; the reason is in ``reasons["kind"]``. One asked for by name is built
        whatever it finds; "auto" takes ivf where hnsw does not find `recall`.
    metric : "cosine", "inner_product" or "l2"
    device : "auto", "cpu", "cuda" or "cuda:N"
        "auto" is the first GPU that FAISS sees, else the CPU; the reason is in ``reasons["device"]``.
    recall : float
        Wanted share of the `k` true neighbours, in (0, 1]: search parameters are the least that find it, for all
        queries and for those of tail classes, see `ltstore.neighbors.recall`.
    k : int
        Neighbours of a query that it is tuned for.
    memory_bytes : int, optional
        What the index may take ("auto" chooses by it); default half of the machine's memory.
    n_queries : int
        Rows held out to tune and judge it, at most one in ten. With fewer than 40 nothing is judged and search is
        as thorough as it can be.
    seed : int
        Of the held-out rows and the training sample.
    checkpoint : Path, optional
        Directory in which the unfinished index is kept every `checkpoint_seconds` (less often where writing it would
        take a tenth of the time), and from which a build of the same rows and settings goes on. The caller removes it.
    progress : Progress

    Raises
    ------
    ConfigError
        Unknown kind, metric or device, numbers out of range, or a kind that the device has not; or nothing that "auto"
        may take finds `recall`.
    BackendUnavailableError
        A GPU was asked for by name, and FAISS sees none or has no such index there.
    StoreWriteError
        The checkpoint cannot be written.

    Notes
    -----
    Memory: the index, one block, and the training sample, 64 rows a list. FAISS uses the threads of OpenMP
    (OMP_NUM_THREADS); those of torch and Numba are other pools, and their settings are left alone.
    """
    validate_metric(metric)
    if k < 1 or n_queries < 0:
        raise ConfigError(f"k must be at least 1 and n_queries not negative, found {k} and {n_queries}")
    reasons: dict[str, str] = {}
    resolved = resolve_device(device, reasons)
    plan = plan_index(
        kind,
        rows.n_samples,
        rows.n_features,
        recall=recall,
        memory_bytes=memory_bytes,
        on_gpu=resolved != "cpu",
    )
    if plan.kind == "hnsw" and resolved != "cpu":
        if device != "auto":
            raise ConfigError("FAISS has no hnsw index on GPUs: use device cpu or kind ivf")
        resolved, reasons["device"] = "cpu", "FAISS has no hnsw index on GPUs"
    plans = [plan]
    if kind == "auto" and plan.kind == "hnsw":
        plans.append(plan_index("ivf", rows.n_samples, rows.n_features))  # all lists are all rows
    held = hold_out(rows, n_queries if plan.effort else 0, seed=seed)
    kept = np.ones(rows.n_samples, np.bool_)
    kept[held.positions] = False
    found = ""
    for number, tried in enumerate(plans):
        plan = replace(tried, reason=found) if number else tried
        reasons["kind"] = plan.reason
        empty, resolved = place_index(new_index(plan, rows.n_features, metric), device, resolved, reasons)
        index = FaissIndex(
            empty,
            rows,
            plan=plan,
            metric=metric,
            device=resolved,
            parameters={name: levels[-1] for name, levels in plan.effort.items()},
            parts=[(rows.n_samples, held.positions)],
            rows_digest=rows.digest,
            reasons=reasons,
            k=k,
        )
        if not (checkpoint is not None and load_partial(checkpoint, index)) and plan.n_lists:
            index.train(_sample(rows, kept, plan.n_lists, seed))
        _fill(index, rows, kept, 0, checkpoint, checkpoint_seconds, progress)
        if _finish(index, rows, held, kept, recall) or kind != "auto" or index.report is None:
            return index
        least = min(index.report.recall.values())
        found = f"{plan.kind} finds {least:.3f} of the neighbours, recall {recall:g} is wanted"
        progress(-rows.n_samples, {})
    raise ConfigError(
        f"no kind of index in the memory allowed finds enough: {found}; "
        f"give more memory or less recall, or ask for kind {plan.kind} to have it all the same"
    )


def extend_index(
    index: FaissIndex,
    rows: Rows,
    *,
    recall: float = 0.95,
    n_queries: int = N_QUERIES,
    seed: int = 0,
    progress: Progress = no_progress,
) -> FaissIndex:
    """Add the rows that were appended since an index was built; lists and codes stay as they were learned.

    Parameters
    ----------
    index : FaissIndex
        Over the first rows of `rows`; not to be used afterwards.
    rows : Rows
        The old rows and then the new.
    recall, n_queries, seed, progress
        As in `build_index`; held out are new rows. Where they are too few, parameters and report stay those of the
        old rows, and the report's `n_indexed` says so.

    Raises
    ------
    IndexStaleError
        The rows do not begin with those of the index.
    """
    first = index.n_samples
    if not np.array_equal(index.row_ids, rows.row_ids[:first]):
        raise IndexStaleError(f"the rows do not begin with the {first} that the index is of: build it again")
    held = hold_out(rows, n_queries if index.plan.effort else 0, first=first, seed=seed)
    grown = index.over(rows, held.positions)
    kept = np.ones(rows.n_samples, np.bool_)
    kept[held.positions] = False
    _fill(grown, rows, kept, first, None, 0.0, progress)
    _finish(grown, rows, held, kept, recall)
    return grown


def _sample(rows: Rows, kept: BoolArray, n_lists: int, seed: int) -> FloatArray:
    positions = np.flatnonzero(kept)
    n = min(max(TRAINING_ROWS * n_lists, _LEAST_TRAINED), len(positions))
    return rows.take(np.sort(stream(seed, "index.training").choice(positions, n, replace=False)))


def _fill(
    index: FaissIndex,
    rows: Rows,
    kept: BoolArray,
    first: int,
    checkpoint: Path | None,
    checkpoint_seconds: float,
    progress: Progress,
) -> None:
    """Add the kept rows from position `first` on, less those that a checkpoint brought."""
    there = index.n_added - first
    waiting = first + np.flatnonzero(kept[first:])[there:]
    begin = int(waiting[0]) if len(waiting) else rows.n_samples
    progress(begin - first, {})
    saved, patience = time.monotonic(), checkpoint_seconds
    for start, X, _ in iter_blocks(rows, first=begin):
        some = kept[start : start + len(X)]
        index.add(X if some.all() else X[some])
        progress(len(X), {})
        if checkpoint is not None and time.monotonic() - saved >= patience:
            began = time.monotonic()
            save_index(index, checkpoint, {})
            saved = time.monotonic()
            patience = max(checkpoint_seconds, _PATIENCE * (saved - began))


def _finish(index: FaissIndex, rows: Rows, held: HeldOut, kept: BoolArray, wanted: float) -> bool:
    """Tune and judge the index with the rows held out of it, then add them; whether it finds what is wanted."""
    if not index.plan.effort:
        index.report = exact_report(index, rows, index.k)
    if not len(held.positions):
        return True
    judge = Judge(rows, held, np.flatnonzero(kept), metric=index.metric, k=index.k, wanted=wanted)
    enough = judge.tune(index, index.plan, index.parameters)
    index.report = judge.report(index)
    if not index.report.reached:
        logger.warning(
            "the %s index finds %s of the neighbours, %s was wanted", index.kind, index.report.recall, wanted
        )
    index.add(rows.take(held.positions))
    return enough or index.report.reached
