"""What is inside a store, as one JSON value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ltstore.atomic import TEMPORARY_SUFFIX
from ltstore.errors import LtstoreError
from ltstore.storage import Place
from ltstore.store import quarantine
from ltstore.store.generation import Generation, generation_location, later_generations
from ltstore.store.split import Split
from ltstore.store.store import ArtefactKind, Store, open_store
from ltstore.types import UNLABELLED, IntArray, RowStatus

SHOWN_FAILURES = 5


def store_info(path: Place) -> dict[str, Any]:
    """Return everything a person wants to see of a store.

    Returns
    -------
    dict
        "path", "format_version", "encoder", "class_names", "n_classes", "n_bytes"; "splits" and "synthetic":
        {name: summary}, with progress where a split is incomplete, {"damaged": why} where it cannot be read, and
        "timings", the seconds by stage that writing it took;
        "indexes" and "stats": names.

    Notes
    -----
    Reads labels and commit records, no embeddings.
    """
    store = open_store(path)
    splits = {name: _summary(store.split, name) for name in store.splits}
    synthetic = {name: _summary(store.synthetic, name) for name in store.synthetic_names}
    return {
        "path": str(store.location),
        "format_version": store.format_version,
        "encoder": {**store.encoder.to_json(), "digest": store.encoder.digest},
        "n_classes": len(store.class_names),
        "class_names": list(store.class_names),
        "n_bytes": sum(summary["n_bytes"] for summary in (*splits.values(), *synthetic.values())),
        "splits": splits,
        "synthetic": synthetic,
        "indexes": _artefacts(store, "indexes"),
        "stats": _artefacts(store, "stats"),
    }


def _artefacts(store: Store, kind: ArtefactKind) -> list[str]:
    found = store.artefact_location(kind).child_names()
    return [name for name in found if not name.startswith(".") and not name.endswith(TEMPORARY_SUFFIX)]


def _summary(open_split: Callable[..., Split], name: str) -> dict[str, Any]:
    """Summarise a split; one that cannot be read is {"damaged": why}."""
    try:
        return _split(open_split(name, allow_incomplete=True))
    except LtstoreError as err:
        return {"damaged": str(err), "n_bytes": 0}


def _split(split: Split) -> dict[str, Any]:
    n_failures = sum(split.failures().values())
    row_ids, labels, status = split.written()
    rows_written = sum(commit.stop - commit.start for commit in split.commits)
    summary: dict[str, Any] = {
        "n_rows": split.n_rows,
        "n_ok": rows_written - n_failures,
        "n_features": split.n_features,
        "dtype": split.dtype,
        "n_bytes": sum(entry["n_bytes"] for commit in split.commits for entry in commit.files.values()),
        "complete": split.complete,
        "rows_written": rows_written,
        "shards_written": len(split.commits),
        "n_shards": sum(generation.plan.n_shards for generation in split.generations),
        "rows_per_shard": split.generations[0].plan.rows_per_shard,
        "generations": [
            {"n_rows": each.n_rows, "first_row": each.first_row, "source_digest": each.record.source_digest}
            for each in split.generations
        ],
        "appending": _appending(split),
        "failures": split.failures(),
        "failed_rows": _failed_rows(split, row_ids[status != RowStatus.OK][:SHOWN_FAILURES]),
        "zero_norm": split.zero_norm,
        "timings": _timings(split),
        "classes": class_summary(labels, len(split.class_names)),
        "source_digest": split.source_digest,
        "settings": split.settings,
        "quarantine": quarantine.names(split.location),
        "subsets": {},
    }
    if split.complete:
        summary["digest"] = split.digest
    for name in split.subsets:
        ids = split.subset(name)
        summary["subsets"][name] = {
            "n_rows": len(ids),
            "classes": class_summary(split.labels[ids], len(split.class_names)),
            "settings": split.subset_settings(name),
        }
    return summary


def _timings(split: Split) -> dict[str, float]:
    """Return the seconds by stage of all shards together."""
    stages = dict.fromkeys(stage for commit in split.commits for stage in commit.timings)
    return {stage: sum(commit.timings.get(stage, 0.0) for commit in split.commits) for stage in stages}


def _appending(split: Split) -> dict[str, int] | None:
    """Return how far the appending of rows has come, None where none are being appended."""
    number = len(split.generations)
    if not split.complete or number not in later_generations(split.location):
        return None
    try:
        begun = Generation(generation_location(split.location, number), split.n_features)
    except FileNotFoundError:
        return None
    return {"n_rows": begun.n_rows, "rows_written": sum(commit.stop - commit.start for commit in begun.commits)}


def _failed_rows(split: Split, ids: IntArray) -> list[dict[str, Any]]:
    """Return failed rows with where they came from and why they have no embedding."""
    if not split.failures():
        return []
    return [
        {"row": int(row), "key": key, "error": error}
        for row, key, error in zip(ids, split.keys(ids), split.errors(ids), strict=True)
    ]


def class_summary(labels: IntArray, n_classes: int) -> dict[str, Any]:
    """Return how rows spread over classes.

    Returns
    -------
    dict
        "labelled", "unlabelled", "n_nonempty"; over the classes that have rows: "largest", "median",
        "smallest" and "imbalance_ratio" = largest / smallest, None where no class has rows.
    """
    known = labels[labels != UNLABELLED]
    counts = np.bincount(known, minlength=n_classes)
    counts = counts[counts > 0]
    return {
        "labelled": len(known),
        "unlabelled": len(labels) - len(known),
        "n_nonempty": len(counts),
        "largest": int(counts.max()) if len(counts) else None,
        "median": float(np.median(counts)) if len(counts) else None,
        "smallest": int(counts.min()) if len(counts) else None,
        "imbalance_ratio": float(counts.max() / counts.min()) if len(counts) else None,
    }
