"""docs/estimators.md: its blocks run, one after the other, and what the text says of them is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "estimators.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imblearn")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["after"] > names["before"]
    assert names["search"].best_score_ > 0.85
    assert names["same"].all()
    growing, adjusted = names["growing"], names["adjusted"]
    assert growing.n_iter_ < adjusted.n_iter_
    assert (growing.predict(names["X_test"]) == adjusted.predict(names["X_test"])).mean() > 0.98
    assert names["y_more"].tolist().count(9) == 60
    assert names["parents"].tolist() == [9]
    assert names["scores"].mean() > 0.85
