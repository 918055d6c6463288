"""A build takes the memory of its index and a bounded rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ltstore.neighbors import KINDS


def build(kind: str, n: int, d: int) -> dict[str, Any]:
    """Return what `support.index_build` says of a build in a process of its own."""
    words = ["-m", "support.index_build", "--kind", kind, "--rows", str(n), "--features", str(d)]
    path = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, *words],
        check=True,
        capture_output=True,
        timeout=3000,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["flat", "ivf", "sq8"])
def test_a_short_build(kind: str) -> None:
    found = build(kind, 120_000, 64)
    assert found["peak_bytes"] - found["index_bytes"] < 120_000_000
    assert found["recall"]["all"] > 0.88


@pytest.mark.stress
@pytest.mark.parametrize("kind", KINDS)
def test_a_million_rows_within_two_gigabytes(kind: str) -> None:
    found = build(kind, 1_000_000, 512)
    assert found["peak_bytes"] - found["index_bytes"] < 2_000_000_000, found
    least = 0.85 if kind == "hnsw" else 0.88  # a graph finds less where clusters are mere noise
    assert found["recall"]["all"] > least, found
