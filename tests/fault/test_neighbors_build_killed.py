"""A build that is killed goes on from its checkpoint; one of other rows or settings, or a damaged one, begins anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ltstore.neighbors import KINDS, FaissIndex, build_index
from ltstore.neighbors.saved import load_partial, save_index
from ltstore.rows import ArrayRows

N, D = 30_000, 8
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
LABELS = np.arange(N) % 40 % 33
KILLED = """
import os, signal, sys
from pathlib import Path
from fault_build import *
def progress(rows, seconds):
    progress.done = getattr(progress, "done", 0) + rows
    if progress.done > 20_000:
        os.kill(os.getpid(), signal.SIGKILL)
build(sys.argv[1], Path(sys.argv[2]), progress)
"""


def build(kind: str, checkpoint: Path | None, progress: object = None, **settings: object) -> FaissIndex:
    rows = ArrayRows(X, LABELS)
    return build_index(
        rows,
        kind=kind,
        device="cpu",
        checkpoint=checkpoint,
        checkpoint_seconds=0,
        progress=progress or (lambda rows, seconds: None),  # type: ignore[arg-type]
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_build_goes_on(kind: str, tmp_path: Path) -> None:
    (tmp_path / "fault_build.py").write_bytes(Path(__file__).read_bytes())
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + KILLED
    words = [sys.executable, "-c", code, kind, str(tmp_path / "partial")]
    killed = subprocess.run(words, check=False, capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr.decode()
    steps: list[int] = []
    index = build(kind, tmp_path / "partial", lambda rows, seconds: steps.append(rows))
    assert steps[0] >= 8000  # there already
    assert sum(steps) == N
    assert index.n_added == N
    whole, queries = build(kind, None), X[::500]
    ids, distances = index.search(queries, 5)
    expected_ids, expected = whole.search(queries, 5)
    if kind == "hnsw":  # threads link rows in any order
        assert (ids == expected_ids).mean() > 0.95
    else:
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_array_equal(distances, expected)


def test_what_is_not_gone_on_with(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    index = build("ivf", partial)
    save_index(index, partial, {})
    assert not load_partial(tmp_path / "none", index)
    assert load_partial(partial, index)
    for changed in (build("sq8", None), build("ivf", None, metric="l2"), build("ivf", None, seed=1)):
        assert not load_partial(partial, changed)
    other = build_index(ArrayRows(X + 1, LABELS), kind="ivf", device="cpu")
    assert not load_partial(partial, other)
    file = partial / "index.faiss"
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    assert not load_partial(partial, index)
    (partial / "record.json").write_text("{")
    assert not load_partial(partial, index)
