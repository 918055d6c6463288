"""A process of its own that trains on so many rows once and says what it took: `python -m bench.scaling`.

Rows are those of a store, or made as they are read, so that there may be more than a disk holds: block after block of a
pool of float16 rows, converted and scaled to unit norm as a mapped store's are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import ROOT
from bench.streaming import peak_bytes
from ltstore.sources.longtail import long_tail_counts
from ltstore.types import EncoderIdentity, FloatArray, IntArray, Rows

N_PASSES = 3
"""The first of them is told by the moments, and reads nothing."""
MOST_TESTED = 20_000
_POOL_ROWS = 1 << 16
_WARM_ROWS = 64


@dataclass(frozen=True)
class Taken:
    """What a run took: CPU seconds of each step, and the most memory that was resident.

    `n_failed` is 0 where it did what was asked for.
    """

    moments: float
    train: float
    evaluate: float
    peak_bytes: int
    disk_bytes: int
    n_failed: int


class PooledRows:
    """Long-tailed rows of unit norm that are made when they are read, as `ltstore.types.Rows`."""

    normalized = True
    digest = "sha256:pooled"

    def __init__(self, n_rows: int, n_features: int, n_classes: int) -> None:
        rng = np.random.default_rng(0)
        counts = long_tail_counts(min(n_rows, _POOL_ROWS), n_classes)
        labels = rng.permutation(np.repeat(np.arange(n_classes), counts))
        n_pool = len(labels)
        means = rng.standard_normal((n_classes, n_features), np.float32)
        self._pool = np.empty((n_pool, n_features), np.float16)
        for start in range(0, n_pool, 4096):
            some = slice(start, start + 4096)
            noise = rng.standard_normal((len(labels[some]), n_features), np.float32)
            self._pool[some] = means[labels[some]] + 2 * noise
        self.labels: IntArray = np.resize(labels, n_rows).astype(np.int64)
        self.row_ids: IntArray = np.arange(n_rows)
        self.n_samples, self.n_features = n_rows, n_features
        self.class_names = tuple(map(str, range(n_classes)))
        self.encoder = EncoderIdentity(encoder="made", model="pooled", n_features=n_features)

    def read(self, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
        """Return rows [start, stop), in `out` if given."""
        from ltstore.kernels.rows import copy_rows

        X = np.empty((stop - start, self.n_features), np.float32) if out is None else out
        while start < stop:
            first = start % len(self._pool)
            n = min(stop - start, len(self._pool) - first)
            copy_rows(self._pool[first : first + n], X[len(X) - (stop - start) :][:n], unit=True)
            start += n
        return X

    def take(self, positions: IntArray, out: FloatArray | None = None) -> FloatArray:
        """Return the rows at `positions`, in `out` if given."""
        from ltstore.rows import normalize_rows

        X = np.empty((len(positions), self.n_features), np.float32) if out is None else out
        X[:] = self._pool[positions % len(self._pool)]
        return normalize_rows(X)


def train_apart(shape: tuple[int, int, int], store: Path | None) -> Taken:
    """Compute moments, train and evaluate in a process of its own.

    Parameters
    ----------
    shape : (N, D, C)
    store : Path, optional
        Its split "train" has these rows; left out they are made.

    Raises
    ------
    RuntimeError
        The process failed.
    """
    words = [sys.executable, "-m", "bench.scaling", *map(str, shape), *([str(store)] if store else [])]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"training {shape} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return Taken(**json.loads(done.stdout))


def run(n_rows: int, n_features: int, n_classes: int, store: Path | None = None) -> Taken:
    """Do it in this process."""
    disk_bytes = 0
    rows: Any = None
    if store is not None:
        from ltstore.store import open_store

        rows = open_store(store).split("train").rows(normalize=True)
        disk_bytes = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    else:
        rows = PooledRows(n_rows, n_features, n_classes)
    test = PooledRows(min(n_rows, MOST_TESTED), n_features, n_classes)
    test.encoder, test.class_names = rows.encoder, rows.class_names
    _steps(
        PooledRows(_WARM_ROWS, n_features, 2), PooledRows(_WARM_ROWS, n_features, 2)
    )  # starts what starts once
    (moments, train, evaluate), whole = _steps(rows, test)
    return Taken(moments, train, evaluate, peak_bytes(), disk_bytes, 0 if whole else n_rows)


def _steps(rows: Rows, test: Rows) -> tuple[list[float], bool]:
    """Return the CPU seconds of moments, training and evaluation, and whether they did what they should."""
    from ltstore.linear import TrainSettings, train_linear
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream
    from ltstore.workflow import compare

    times = [time.process_time()]
    moments = class_moments(rows)
    times.append(time.process_time())
    settings = TrainSettings(max_passes=N_PASSES, tolerance=0.0)
    result = train_linear(TrainingStream(rows), settings, moments)
    times.append(time.process_time())
    judged = compare({"model": result.model}, test).models[0]
    times.append(time.process_time())
    whole = result.n_passes == N_PASSES and len(judged.predictions) == test.n_samples
    return np.diff(times).tolist(), whole and bool(np.isfinite(result.model.weight).all())


def main(words: list[str]) -> int:
    """Run, and print what it took as JSON."""
    n_rows, n_features, n_classes = map(int, words[:3])
    print(json.dumps(asdict(run(n_rows, n_features, n_classes, *map(Path, words[3:])))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
