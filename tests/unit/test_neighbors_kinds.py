"""Which kind `auto` takes, and that the sizes it goes by are those that FAISS writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import ConfigError
from ltstore.neighbors import KINDS, build_index, plan_index, save_index
from ltstore.rows import ArrayRows


@pytest.mark.parametrize(
    "n, memory, recall, on_gpu, kind",
    [
        (100_000, 10**9, 0.95, False, "flat"),
        (1_000_000, 10**10, 0.95, False, "hnsw"),
        (1_000_000, 10**10, 0.95, True, "ivf"),
        (1_000_000, 10**10, 1.0, False, "flat"),
        (5_000_000, 10**11, 0.95, False, "ivf"),
        (1_000_000, 2_200_000_000, 0.95, False, "ivf"),
        (1_000_000, 10**9, 0.95, False, "sq8"),
        (1_000_000, 10**8, 0.95, False, "ivfpq"),
        (100_000, 10**7, 0.95, False, "ivfpq"),
    ],
)
def test_auto(n: int, memory: int, recall: float, on_gpu: bool, kind: str) -> None:
    plan = plan_index("auto", n, 512, memory_bytes=memory, recall=recall, on_gpu=on_gpu)
    assert plan.kind == kind
    assert plan.n_bytes <= memory
    assert plan.reason


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="ivfpq needs"):
        plan_index("auto", 1_000_000, 512, memory_bytes=10**7)
    with pytest.raises(ConfigError, match="recall 1 needs all rows"):
        plan_index("auto", 1_000_000, 512, memory_bytes=10**9, recall=1)
    with pytest.raises(ConfigError, match=r"recall must be in \(0, 1\]"):
        plan_index("flat", 10, 10, recall=0)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind: str, tmp_path: Path) -> None:
    rows = ArrayRows(np.random.default_rng(0).normal(size=(5000, 96)))
    index = build_index(rows, kind=kind, device="cpu")
    save_index(index, tmp_path / kind, {})
    assert (tmp_path / kind / "index.faiss").stat().st_size == pytest.approx(index.plan.n_bytes, rel=0.06)
