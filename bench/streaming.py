"""A process of its own that streams a store once and says how much memory it took: `python -m bench.streaming`.

It stops, with an error, as soon as its resident memory has passed the ceiling: mapped pages of files count.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.machine import ROOT

CYCLE = 1024
PASSES = 2
N_CLASSES = 10


@dataclass(frozen=True)
class Streamed:
    """What one pass has seen: rows, those whose first feature is not what it must be, and the peak of memory."""

    n_rows: int
    n_failed: int
    peak_bytes: int


def marks(row_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what the first feature of each row must be: exact in float16."""
    return (row_ids % CYCLE / CYCLE).astype(np.float32)


def stream_apart(store: Path, way: str, ceiling: int) -> Streamed:
    """Stream split "train" of a store in a process of its own.

    Parameters
    ----------
    store : Path
    way : {"in order", "batches", "train"}
        "in order": a training pass, the two products and the softmax gradient of ten classes on blocks of 8,192
        rows. "batches": an epoch of shuffled minibatches of 4,096. "train": moments and `PASSES` passes of the trainer.
    ceiling : int
        Bytes.

    Raises
    ------
    RuntimeError
        The process failed, or passed the ceiling.
    """
    words = [sys.executable, "-m", "bench.streaming", str(store), way, str(ceiling)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"streaming {way} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return Streamed(**json.loads(done.stdout))


def peak_bytes() -> int:
    """Return the most memory that was ever resident in this process, mapped pages of files included."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except OSError:
        import resource  # bytes on macOS, which has no /proc

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _blocks(store: Path, way: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    from ltstore.kernels import softmax_gradient
    from ltstore.rows import iter_blocks
    from ltstore.store import open_store
    from ltstore.stream import iter_batches

    rows = open_store(store).split("train").rows(normalize=False)
    if way == "batches":
        for batch in iter_batches(rows, reuse=True):
            yield batch.row_ids, batch.X
        return
    weight = np.zeros((rows.n_features, N_CLASSES), np.float32)
    gradient = np.zeros_like(weight)
    for start, X, labels in iter_blocks(rows):
        logits = X @ weight
        softmax_gradient(logits, labels, np.zeros(N_CLASSES, np.float32))
        gradient += X.T @ logits
        yield rows.row_ids[start : start + len(X)], X


def _train(store: Path) -> Streamed:
    from ltstore.linear import TrainSettings, train_linear
    from ltstore.stats import class_moments
    from ltstore.store import open_store
    from ltstore.stream import TrainingStream

    stream = TrainingStream(open_store(store).split("train").rows(normalize=True))
    n_passes = 1 + PASSES  # the first is told by the moments, and reads nothing
    settings = TrainSettings(max_passes=n_passes, tolerance=0.0)
    result = train_linear(stream, settings, class_moments(stream.rows))
    whole = result.n_passes == n_passes and np.isfinite(result.model.weight).all()
    n_failed = 0 if whole else stream.n_samples
    return Streamed(stream.n_samples, n_failed, peak_bytes())


def main(words: Any = None) -> int:
    """Stream, and print what was seen as JSON."""
    store, way, ceiling = words or sys.argv[1:]
    if way == "train":
        print(json.dumps(asdict(_train(Path(store)))))
        return 0
    n_rows = n_failed = 0
    for row_ids, X in _blocks(Path(store), way):
        n_rows += len(X)
        n_failed += int((X[:, 0] != marks(row_ids)).sum())
        if peak_bytes() > int(ceiling):
            print(f"{peak_bytes()} bytes were resident after {n_rows} rows: over {ceiling}", file=sys.stderr)
            return 1
    print(json.dumps(asdict(Streamed(n_rows, n_failed, peak_bytes()))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
