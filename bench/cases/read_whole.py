"""read.whole: all rows of a split into a new array, against the other readers of the same files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_half_rows, stored
from bench.stores import HalfRows, whole_readers
from bench.timing import Candidate, Workload, WrongResultError

AIM = 3.0  # against every Zarr implementation, so against the best
SHAPES = {"toy": (3000, 16), "full": (200_000, 768)}


def build(size: Size) -> Iterator[Workload]:
    """Yield the one workload: the split into a new float16 array, page cache warm."""
    n_rows, n_features = SHAPES[size]
    rows = made_half_rows(n_rows, n_features)
    with TemporaryDirectory() as directory:
        split = stored(Path(directory) / "store", rows).split("train")

        def mapped() -> HalfRows:
            out: HalfRows = np.empty((n_rows, n_features), np.float16)
            split.embeddings.read(0, n_rows, out)
            return out

        def check(name: str, result: Any) -> None:
            if not np.array_equal(result, rows):
                raise WrongResultError(f"{name}: rows differ from those written")

        readers, skipped = whole_readers(split)
        yield Workload(
            variant="float16",
            candidates=(
                Candidate(name="ltstore mapped read", run=mapped, work=n_rows),
                Candidate(name="memcpy (np.copy)", run=rows.copy, work=n_rows),
                *(
                    Candidate(name=peer, run=read, work=n_rows, peer=peer, aim=AIM)
                    for peer, read in readers.items()
                ),
            ),
            check=check,
            unit_bytes=2 * n_features,
            settings={"n_samples": n_rows, "n_features": n_features, "dtype": "float16"},
            skipped=skipped,
        )


CASE = Case(
    name="read.whole",
    definition="a whole float16 split into a new array: rows/s of ltstore / rows/s of the peer, warm cache",
    build=build,
    note="The peers check checksums while reading; ltstore leaves that to `verify`.",
)
