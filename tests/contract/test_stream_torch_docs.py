"""docs/training-loops.md: its blocks run, one after the other, and train something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.store import create_store
from ltstore.types import EncoderIdentity

PAGE = Path(__file__).parents[2] / "docs" / "training-loops.md"
N_CLASSES, N_FEATURES = 5, 16


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store at "store" of five clear classes, long-tailed in train, some rows without a label."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    means = rng.standard_normal((N_CLASSES, N_FEATURES))
    made = create_store(
        "store",
        encoder=EncoderIdentity(encoder="import", model="made", n_features=N_FEATURES),
        class_names=[f"class {c}" for c in range(N_CLASSES)],
    )
    for split, counts in (("train", [800, 400, 200, 100, 50]), ("test", [40] * N_CLASSES)):
        classes = np.repeat(np.arange(N_CLASSES), counts)
        n = len(classes)
        with made.begin_split(split, n_rows=n, source_digest="sha256:made", rows_per_shard=1024) as writer:
            for shard in writer.pending:
                rows = slice(*writer.plan.shard_range(shard))
                here = classes[rows]
                writer.write_shard(
                    shard,
                    embeddings=(means[here] + 0.3 * rng.standard_normal((len(here), N_FEATURES))).astype("f4"),
                    labels=np.where(np.arange(len(here)) % 50 == 7, -1, here),
                    status=np.zeros(len(here), np.uint8),
                    keys=[f"{row}.jpg" for row in range(rows.start, rows.stop)],
                    errors=[None] * len(here),
                )
            writer.finish()


@pytest.mark.usefixtures("store")
def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["accuracy"] > 0.9
    assert names["step"] == 1
    assert names["peak"] > 0
    assert capsys.readouterr().out == "6 batches for each rank, 14 rows left out\n"
    assert len(names["X"]) == len(names["row_ids"])
