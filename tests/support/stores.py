"""Small stores for tests: rows that are a pure function of their row id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.store import SplitWriter, Store, create_store
from ltstore.types import UNLABELLED, EncoderIdentity, FloatArray, RowStatus

CLASS_NAMES = ("newt", "été", "crane", "crane")


def identity(n_features: int = 5, **changes: Any) -> EncoderIdentity:
    return EncoderIdentity(encoder="import", model="made", n_features=n_features, **changes)


def embeddings(n_rows: int, n_features: int = 5) -> FloatArray:
    return np.random.default_rng(7).standard_normal((n_rows, n_features)).astype(np.float32)


def columns(n_rows: int, start: int, stop: int, n_features: int = 5) -> dict[str, Any]:
    """What `write_shard` takes for rows [start, stop): every seventh row is corrupt, every fifth unlabelled."""
    ids = np.arange(start, stop)
    status = np.where(ids % 7 == 3, RowStatus.CORRUPT, RowStatus.OK).astype(np.uint8)
    return {
        "embeddings": embeddings(n_rows, n_features)[start:stop],
        "labels": np.where(ids % 5 == 4, UNLABELLED, ids % len(CLASS_NAMES)),
        "status": status,
        "keys": [f"image/{row:04d}-é.jpg" for row in ids],
        "errors": ["cut short" if bad else None for bad in status],
    }


def new_store(path: Path, n_features: int = 5) -> Store:
    return create_store(path, encoder=identity(n_features), class_names=CLASS_NAMES)


def begin(store: Store, n_rows: int, rows_per_shard: int | str = 8, **changes: Any) -> SplitWriter:
    arguments = {"source_digest": "sha256:made", "rows_per_shard": rows_per_shard, **changes}
    return store.begin_split("train", n_rows=n_rows, **arguments)


def write_pending(writer: SplitWriter) -> None:
    plan = writer.plan
    for shard in writer.pending:
        writer.write_shard(shard, **columns(plan.n_rows, *plan.shard_range(shard)), timings={"encode": 0.5})


def made_store(path: Path, n_rows: int = 20, rows_per_shard: int | str = 8, **changes: Any) -> Store:
    """A store with one complete split "train"."""
    store = new_store(path)
    with begin(store, n_rows, rows_per_shard, **changes) as writer:
        write_pending(writer)
        writer.finish()
    return store


def tree(path: Path) -> dict[str, bytes]:
    """Every file's bytes; commit records without what differs between equal runs."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            if file.parent.name == "commits":
                record = json.loads(data)
                del record["timings"], record["sha256"]  # the seal covers the timings
                data = json.dumps(record).encode()
            found[str(file.relative_to(path))] = data
    return found
