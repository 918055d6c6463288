"""A graph that is killed goes on from its blocks, to the same bytes; foreign and damaged blocks are found anew."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.neighbors import FaissIndex, build_index, graph, write_graph
from ltstore.rows import ArrayRows
from ltstore.types import IntArray

ROWS = ArrayRows(np.random.default_rng(0).normal(size=(1000, 8)))
RECORD = {"settings": {"k": 3}, "made_from": {"index": "sha256:a"}, "created": "whenever"}
KILLED = """
import os, signal, sys
from pathlib import Path
from fault_graph import *
def progress(rows, seconds):
    progress.done = getattr(progress, "done", 0) + rows
    if progress.done > 500:
        os.kill(os.getpid(), signal.SIGKILL)
graph.BLOCK_ROWS = 128
write_graph(build_index(ROWS, kind="ivf", device="cpu"), ROWS, 3, Path(sys.argv[1]), RECORD, progress=progress)
"""


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "BLOCK_ROWS", 128)


@pytest.fixture(scope="module")
def index() -> FaissIndex:
    return build_index(ROWS, kind="ivf", device="cpu")


@pytest.fixture
def asked(index: FaissIndex, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows that begin the blocks that the index is asked for."""
    starts: list[int] = []
    search: Callable[..., Any] = FaissIndex.search

    def spy(self: FaissIndex, X: Any, k: int, *, exclude: IntArray, among: Any = None) -> Any:
        starts.append(int(exclude[0]))
        return search(self, X, k, exclude=exclude, among=among)

    monkeypatch.setattr(FaissIndex, "search", spy)
    return starts


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_a_killed_graph_goes_on(index: FaissIndex, asked: list[int], tmp_path: Path) -> None:
    (tmp_path / "fault_graph.py").write_bytes(Path(__file__).read_bytes())
    where = tmp_path / "killed" / "graph"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + KILLED
    killed = subprocess.run(
        [sys.executable, "-c", code, str(where)], check=False, capture_output=True, timeout=120
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert not where.exists()
    steps: list[int] = []
    write_graph(index, ROWS, 3, where, RECORD, progress=lambda rows, seconds: steps.append(rows))
    assert asked == [512, 640, 768, 896]
    assert sum(steps) == 1000
    write_graph(index, ROWS, 3, tmp_path / "whole", RECORD)
    assert bytes_of(where) == bytes_of(tmp_path / "whole")
    assert [path.name for path in where.parent.iterdir()] == [
        "graph"
    ]  # neither blocks nor what was being written


def test_what_is_not_gone_on_with(index: FaissIndex, asked: list[int], tmp_path: Path) -> None:
    where, blocks = tmp_path / "graph", tmp_path / "building-graph"

    def fail_at_the_end(rows: int, seconds: object) -> None:
        if rows == 1000 % 128:
            raise KeyboardInterrupt

    def interrupted(record: dict[str, Any], k: int = 3) -> list[int]:
        asked.clear()
        with pytest.raises(KeyboardInterrupt):
            write_graph(index, ROWS, k, where, record, progress=fail_at_the_end)
        return asked.copy()

    everything = list(range(0, 1000, 128))
    assert interrupted(RECORD) == everything
    assert interrupted(RECORD | {"created": "later"}) == []
    for changed in ({"made_from": {"index": "sha256:b"}}, {"settings": {"k": 3, "metric": "l2"}}):
        assert interrupted(RECORD | changed) == everything
    assert interrupted(RECORD, k=4) == everything
    assert interrupted(RECORD) == everything
    damaged = bytearray((blocks / f"{256:012d}").read_bytes())
    damaged[17] ^= 1
    (blocks / f"{256:012d}").write_bytes(damaged)
    (blocks / f"{384:012d}").write_bytes(damaged[:-40])
    (blocks / f"{640:012d}").unlink()
    assert interrupted(RECORD) == [256, 384, 640]
    assert not where.exists()
    write_graph(index, ROWS, 3, where, RECORD)
    assert np.load(where / "neighbor_ids.npy").shape == (1000, 3)
    assert not blocks.exists()
