"""Measure the synthetic rows of a sampler, and keep what was found beside the store."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.errors import DataError
from ltstore.neighbors import build_index
from ltstore.quality import MAX_ROWS, ClassTable, K, Quality, measure_held_out, measure_made
from ltstore.rows import ArrayRows
from ltstore.sampling import BaseSampler
from ltstore.stats import class_moments
from ltstore.types import IntArray, Progress, Sampler, no_progress
from ltstore.workflow.kept import keep, read_kept
from ltstore.workflow.selection import Selection

QUALITY_DIR = "quality"
VERSION = 1
"""Of the measures: raised when their definition changes, so that what was kept before is measured anew."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured, where it is kept, and whether it was there already."""

    quality: Quality
    path: Path
    reused: bool


def measure_sampler(
    selection: Selection,
    sampler: BaseSampler,
    targets: IntArray,
    *,
    unfitted: Callable[[], BaseSampler],
    donors_by: str = "means",
    seed: int = 0,
    progress: Progress = no_progress,
) -> Measured:
    """Measure the rows that a sampler gives a selection, or return what was found before of the same rows.

    Parameters
    ----------
    selection : Selection
    sampler : BaseSampler
        Fitted to the selection.
    targets : (C,) int64
        Synthetic rows of each class.
    unfitted : callable
        Makes the sampler anew, to be fitted to rows some of which are hidden. There its donors are found by class
        means.
    donors_by : {"means", "index"}
        How the fitted one's were found.
    seed : int
        Of its rows.

    Returns
    -------
    Measured

    Notes
    -----
    About 4 s for 10,847 rows of 1,280 features; more rows cost their share of one search of at most 4,000 queries,
    and of building an index. Kept in stats/SPLIT/.../quality/.
    """
    settings = _settings(sampler, targets, donors_by, seed)
    path = _path(selection, settings)
    if (kept := read_kept(path, "quality", selection, settings, Quality.from_json)) is not None:
        return Measured(quality=kept, path=path, reused=True)
    began = time.perf_counter()
    held_out, reason = _held_out(selection, unfitted, seed, progress)
    index = build_index(selection.rows, metric="l2", device="cpu")
    made, intruded = measure_made(
        selection.rows, sampler, targets, index, k=K, donors=selection.donors(donors_by), seed=seed
    )
    quality = Quality(
        made=made,
        intruded=intruded,
        held_out=held_out,
        reason=reason,
        n_synthetic=int(np.sum(targets)),
        k=K,
        seconds=time.perf_counter() - began,
    )
    keep(path, "quality", selection, settings, quality.to_json(), kind="quality", seed=seed)
    return Measured(quality=quality, path=path, reused=False)


def _held_out(
    selection: Selection, unfitted: Callable[[], BaseSampler], seed: int, progress: Progress
) -> tuple[ClassTable | None, str]:
    def fit(rows: ArrayRows) -> Sampler:
        return unfitted().fit(rows, class_moments(rows))

    try:
        return measure_held_out(selection.rows, fit, seed=seed, progress=progress), ""
    except DataError as err:
        return None, str(err)


def _settings(sampler: BaseSampler, targets: IntArray, donors_by: str, seed: int) -> dict[str, Any]:
    wanted = np.ascontiguousarray(targets, np.int64)
    return {
        "version": VERSION,
        "sampler": sampler.name,
        "sampler_settings": dict(sampler.settings),
        "donors_by": donors_by,
        "targets": "sha256:" + hashlib.sha256(wanted.tobytes()).hexdigest(),
        "seed": seed,
        "k": K,
        "max_rows": MAX_ROWS,
    }


def _path(selection: Selection, settings: Mapping[str, Any]) -> Path:
    """One file for each sampler, settings and targets."""
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    return selection.stats_path / QUALITY_DIR / f"{settings['sampler']}-{key}.json"
