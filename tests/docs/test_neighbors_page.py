"""The blocks of docs/neighbors.md run as they stand, one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.workflow import select
from support.images import class_tree, encoded, picture
from support.shell import Shell

PAGE = Path(__file__).parents[2] / "docs" / "neighbors.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_every_command_runs(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("open_clip")
    monkeypatch.chdir(tmp_path)
    photos = class_tree(tmp_path / "photos", {"crow": 24, "heron": 6, "owl": 3})
    shell.ok("ingest", photos, "birds.zarr", "--encoder", "open_clip:ViT-S-32-alt/random", "--device", "cpu")
    Path("heron.jpg").write_bytes(encoded(picture(5)))
    rows = select("birds.zarr").rows
    np.save("queries.npy", rows.read(0, 3))
    lines = "".join(blocks("sh")).splitlines()
    answers = [shell.ok(*shlex.split(line)[1:]) for line in lines]
    assert len(answers) == 9
    by_vector = answers[4].json
    assert [answer["neighbors"][0]["row_id"] for answer in by_vector] == rows.row_ids[:3].tolist()
    assert Path("near.html").stat().st_size > 1000
    assert Path("donors.svg").stat().st_size > 1000
    assert np.load(select("birds.zarr").index_path / "graph" / "neighbor_ids.npy").shape == (33, 10)


def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    assert names["index"].report.reached
    assert (names["labels"][names["ids"]] == 2).all()
    assert names["graph"].shape == (940, 10)
    assert (names["graph"] != np.arange(940)[:, None]).all()
