"""read.random: rows at random places, against what other stores take for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import load_compiled, made_half_rows, stored
from bench.stores import HalfRows, random_readers
from bench.timing import Candidate, Workload, WrongResultError

SHAPES = {"toy": (3000, 16, 64), "full": (400_000, 768, 4096)}
AIMS = {"lance": (20.0, 30.0), "tensorstore": (100.0, None), "zarr": (200.0, None)}


def build(size: Size) -> Iterator[Workload]:
    """Yield the one workload: sorted random rows into a new float16 array, page cache warm."""
    n_rows, n_features, n_taken = SHAPES[size]
    rows = made_half_rows(n_rows, n_features)
    load_compiled()
    ids = np.sort(np.random.default_rng(1).choice(n_rows, n_taken, replace=False)).astype(np.int64)

    with TemporaryDirectory() as directory:
        split = stored(Path(directory) / "store", rows).split("train")

        def mapped() -> HalfRows:
            out: HalfRows = np.empty((n_taken, n_features), np.float16)
            split.embeddings.take(ids, out)
            return out

        def check(name: str, result: Any) -> None:
            if not np.array_equal(result, rows[ids]):
                raise WrongResultError(f"{name}: rows differ from those written")

        readers, skipped = random_readers(split, rows, ids, Path(directory))
        yield Workload(
            variant=f"{n_taken} sorted rows",
            candidates=(
                Candidate(name="ltstore mapped take", run=mapped, work=n_taken),
                Candidate(name="np.take in memory", run=lambda: rows[ids], work=n_taken),
                *(
                    Candidate(
                        name=peer, run=read, work=n_taken, peer=peer, aim=AIMS[peer][0], stretch=AIMS[peer][1]
                    )
                    for peer, read in readers.items()
                ),
            ),
            check=check,
            unit_bytes=2 * n_features,
            settings={"n_samples": n_rows, "n_features": n_features, "n_taken": n_taken, "dtype": "float16"},
            skipped=skipped,
        )


CASE = Case(
    name="read.random",
    definition="4,096 sorted random rows of a float16 split: rows/s of ltstore / rows/s of the peer, warm cache",
    build=build,
    note=(
        "zarr-python and tensorstore read the very same files, decode whole chunks of 1,024 rows and check "
        "their checksums; ltstore copies the rows out of the map and leaves checksums to `verify`. "
        "Numba is loaded before, as in a process that trains; without it a process uses NumPy for its first 256 MiB."
    ),
)
