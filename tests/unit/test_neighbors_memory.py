"""A build takes the memory of its index and a bounded rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ltstore.neighbors import KINDS

BUILD = """
import json, sys
from ltstore.neighbors import build_index
from support.lazy_rows import LazyRows

def resident(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

kind, n, d = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
build_index(LazyRows(1000, d), kind="ivf", device="cpu")  # loads what is loaded once
rows = LazyRows(n, d)
before = resident("VmRSS:")
index = build_index(rows, kind=kind, device="cpu", recall=0.9)
print(json.dumps([resident("VmHWM:") - before, index.plan.n_bytes, index.report.recall, index.parameters]))
"""


def build(kind: str, n: int, d: int) -> tuple[int, int, dict[str, float], dict[str, int]]:
    """Return the memory that a build took at most, the size of its index, its recall and its parameters."""
    words = [sys.executable, "-c", BUILD, kind, str(n), str(d)]
    path = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    done = subprocess.run(
        words, check=True, capture_output=True, timeout=3000, env={"PYTHONPATH": ":".join(path)}
    )
    found: tuple[int, int, dict[str, float], dict[str, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["flat", "ivf", "sq8"])
def test_a_short_build(kind: str) -> None:
    peak, size, recall, _ = build(kind, 120_000, 64)
    assert peak - size < 120_000_000
    assert recall["all"] > 0.88


@pytest.mark.stress
@pytest.mark.parametrize("kind", KINDS)
def test_a_million_rows_within_two_gigabytes(kind: str) -> None:
    peak, size, recall, parameters = build(kind, 1_000_000, 512)
    assert peak - size < 2_000_000_000, (peak, size)
    assert recall["all"] > 0.88, (recall, parameters)
