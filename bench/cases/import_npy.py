"""import.npy: a .npy of embeddings into a store, digests and checks and all, against copying the file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.case import Case, Size
from bench.data import made_half_rows
from bench.timing import Candidate, Workload, WrongResultError

SHAPES = {"toy": (3000, 16), "full": (400_000, 768)}


@dataclass
class Written:
    """What a run has written; it goes with the answer, so that removing it is not timed."""

    path: Path
    n_failed: int = 0

    def __del__(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def build(size: Size) -> Iterator[Workload]:
    """Yield the one workload: a float16 file in the page cache, written durably."""
    n_rows, n_features = SHAPES[size]
    with TemporaryDirectory() as directory:
        source = Path(directory) / "rows.npy"
        np.save(source, made_half_rows(n_rows, n_features))
        n_bytes = source.stat().st_size
        numbers = count()

        def imported() -> Written:
            from ltstore.transfer import import_embeddings

            path = Path(directory) / f"store-{next(numbers)}"
            report = import_embeddings(source, path, "train")
            return Written(path, report.n_failed)

        def copied() -> Written:
            path = Path(directory) / f"copy-{next(numbers)}"
            path.mkdir()
            subprocess.run(["cp", str(source), str(path / "rows.npy")], check=True)
            for each in (path / "rows.npy", path):
                descriptor = os.open(each, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
            return Written(path)

        def check(name: str, result: Written) -> None:
            if result.n_failed:
                raise WrongResultError(f"{name}: {result.n_failed} rows failed")
            rows = np.load(source, mmap_mode="r")
            if name == "cp":
                same = np.array_equal(np.load(result.path / "rows.npy", mmap_mode="r"), rows)
            else:
                same = _same_store(result.path, rows)
            if not same:
                raise WrongResultError(f"{name}: what was written differs from the source")

        yield Workload(
            variant="float16",
            candidates=(
                Candidate(name="ltstore import", run=imported, work=n_bytes),
                Candidate(name="cp", run=copied, work=n_bytes, aim=0.5, stretch=0.8),
            ),
            check=check,
            unit="bytes",
            unit_bytes=1,
            settings={"n_samples": n_rows, "n_features": n_features, "dtype": "float16"},
        )


def _same_store(path: Path, rows: np.ndarray[tuple[int, ...], np.dtype[np.float16]]) -> bool:
    from ltstore.store import open_store, verify

    if not verify(path).ok:
        return False
    array, block = open_store(path).split("train").embeddings, np.empty((4096, rows.shape[1]), np.float16)
    for start in range(0, len(rows), len(block)):
        n = min(len(block), len(rows) - start)
        array.read(start, start + n, block[:n])
        if not np.array_equal(block[:n], rows[start : start + n]):
            return False
    return True


CASE = Case(
    name="import.npy",
    definition=(
        "bytes/s of importing a .npy of float16 rows, with SHA-256 of every file, CRC-32C of every chunk and a look at "
        "every value / bytes/s of cp and fsync of the same file"
    ),
    build=build,
    cores=None,
    clock="wall",
    note="The source is in the page cache; both end when what they wrote is on the disk.",
)
