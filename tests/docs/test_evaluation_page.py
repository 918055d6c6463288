"""docs/evaluation.md: its commands and its block run, one after the other, and say what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.shell import Shell

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_page_runs(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
    shown, names = {}, dict[str, Any]()
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "docs/evaluation.md", "exec"), names)
            continue
        for line in block.splitlines():
            words = [
                name for word in line.split()[1:] for name in (sorted(map(str, Path().glob(word))) or [word])
            ]
            shown[line] = shell.ok(*words).out
    assert len(shown) == 9
    first, seeds, mixed = (out for line, out in shown.items() if line.startswith("ltstore evaluate"))
    assert "gap closed" in first
    assert "over seeds" in seeds
    assert "both" in mixed
    assert len((tmp_path / "classes.csv").read_text(encoding="utf-8").splitlines()) == 11
    assert 0 < names["adaptive"] < 0.1
    assert names["bins"].counts.min() >= len(names["right"]) // 15
