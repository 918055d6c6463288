"""read.sequential: the mapped read of a whole split against copying the same bytes in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_half_rows, stored
from bench.timing import Candidate, Workload, WrongResultError

SHAPES = {"toy": (3000, 16), "full": (400_000, 768)}


def build(size: Size) -> Iterator[Workload]:
    """Yield the one workload: float16 rows into a preallocated array, page cache warm."""
    n_rows, n_features = SHAPES[size]
    rows = made_half_rows(n_rows, n_features)
    out = np.zeros_like(rows)

    with TemporaryDirectory() as directory:
        split = stored(Path(directory) / "store", rows).split("train")

        def mapped() -> Any:
            split.embeddings.read(0, n_rows, out)
            return out

        def copied() -> Any:
            np.copyto(out, rows)
            return out

        def check(name: str, result: Any) -> None:
            if not np.array_equal(result.view(np.uint16), rows.view(np.uint16)):
                raise WrongResultError(f"{name}: rows differ from those written")
            out.fill(0)

        yield Workload(
            variant="float16",
            candidates=(
                Candidate(name="ltstore mapped read", run=mapped, work=n_rows),
                Candidate(name="np.copyto in memory", run=copied, work=n_rows, aim=0.8, stretch=0.95),
            ),
            check=check,
            unit_bytes=2 * n_features,
            settings={"n_samples": n_rows, "n_features": n_features, "dtype": "float16"},
        )


CASE = Case(
    name="read.sequential",
    definition="mapped read of a float16 split into a preallocated array / np.copyto of the same bytes, warm cache",
    build=build,
)
