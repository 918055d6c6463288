"""read.memory: resident memory while a store that is larger than memory is read once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.streaming import N_CLASSES, Streamed, marks, stream_apart
from bench.timing import Candidate, Workload, WrongResultError
from ltstore.store import create_store
from ltstore.types import EncoderIdentity

# (bytes of float16 rows, features, rows of a shard)
SHAPES = {"toy": (1 << 20, 64, 1024), "full": (20_000_000_000, 768, 65_536)}
CEILING = 1_500_000_000
STRETCH = 800_000_000
VARIANTS = {
    "in order": "training pass in order",
    "batches": "shuffled batches",
    "train": "moments and two passes",
}


def build(size: Size, ways: tuple[str, ...] = ("in order", "batches")) -> Iterator[Workload]:
    """Yield a workload for each way to stream a store (`bench.streaming`), each in a process of its own."""
    n_bytes, n_features, shard_rows = SHAPES[size]
    n_rows = n_bytes // (2 * n_features)
    settings = {"n_samples": n_rows, "n_features": n_features, "n_bytes": n_bytes, "dtype": "float16"}
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.1 * n_bytes:
        why = f"{tempfile.gettempdir()} has not {1.1 * n_bytes / 1e9:.0f} GB free yet: give another with --dir"
        for way in ways:
            yield _workload(way, (), n_rows, settings, {"ltstore": why})
        return
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory) / "store"
        write(store, n_rows, n_features, shard_rows)
        for way in ways:
            candidates = (
                Candidate(name="ltstore", run=partial(stream_apart, store, way, CEILING), work=n_rows),
                Candidate(
                    name="1.5 GB",
                    run=partial(Streamed, n_rows, 0, CEILING),
                    work=n_rows,
                    aim=1.0,
                    stretch=STRETCH / CEILING,
                ),
            )
            yield _workload(way, candidates, n_rows, settings, {})


def _workload(
    way: str, candidates: tuple[Candidate, ...], n_rows: int, settings: dict[str, Any], skipped: dict[str, str]
) -> Workload:
    def check(name: str, result: Streamed) -> None:
        if result.n_failed or result.n_rows != n_rows:
            raise WrongResultError(
                f"{name}: {result.n_failed} wrong rows, {result.n_rows} of {n_rows} rows seen"
            )

    return Workload(
        variant=VARIANTS[way],
        candidates=candidates,
        check=check,
        kind="memory",
        settings=settings,
        skipped=skipped,
    )


def write(path: Path, n_rows: int, n_features: int, shard_rows: int) -> None:
    """Write a split "train" of random rows, the same in every shard but for the first feature."""
    identity = EncoderIdentity(encoder="import", model="made", n_features=n_features)
    store = create_store(path, encoder=identity, class_names=[str(c) for c in range(N_CLASSES)])
    made = np.random.default_rng(0).standard_normal((shard_rows, n_features), np.float32).astype(np.float16)
    with (
        store.begin_split("train", n_rows=n_rows, source_digest="made", rows_per_shard=shard_rows) as writer,
        ThreadPoolExecutor(2) as pool,
    ):

        def put(shard: int) -> None:
            start, stop = writer.plan.shard_range(shard)
            rows, n = np.arange(start, stop), stop - start
            X = made[:n].copy()
            X[:, 0] = marks(rows)
            writer.write_shard(
                shard,
                embeddings=X,
                labels=rows % N_CLASSES,
                status=np.zeros(n, np.uint8),
                keys=[""] * n,
                errors=[None] * n,
            )

        list(pool.map(put, writer.pending))
        writer.finish()


CASE = Case(
    name="read.memory",
    definition=(
        "peak resident memory of a process that reads a 20 GB store once, mapped pages of files included / 1.5 GB, a "
        "ceiling at which the process stops with an error"
    ),
    build=build,
    cores=None,
    clock="wall",
    note=(
        "The training pass is two products and the softmax gradient of ten classes on blocks of 8,192 rows. The store "
        "is made by the case: `python -m bench run read.memory --dir DIRECTORY` says where, and needs 22 GB there."
    ),
)
