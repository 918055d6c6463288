"""What `ingest` and `info` say of how a run went."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ltstore_cli import _render
from support.images import class_tree
from support.shell import Shell


def test_the_summary_names_what_was_chosen_and_the_limit(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltstore.encode.usage._LEAST_SECONDS", 0.0)
    tree = class_tree(tmp_path / "tree", {"a": 30, "b": 30})
    (tree / "a" / "007.jpg").write_bytes(b"")
    words = ("ingest", str(tree), str(tmp_path / "s"), "--encoder", "pixels:16")
    said = shell.ok(*words, "--workers", "2")
    assert "batches of 1024 (auto, for pixels on cpu)" in said.out
    assert "2 threads (as asked)" in said.out
    assert "limited by     " in said.out
    assert "what helps: " in said.out
    assert said.err.count("\n") == 1  # the warning of the failed row: no progress where stderr is no terminal
    assert "train was limited by" in shell.ok("info", str(tmp_path / "s")).out
    timings = shell.ok("info", str(tmp_path / "s"), "--json").json["splits"]["train"]["timings"]
    assert set(timings) == {"read", "decode", "encode", "wall", "threads", "store"}
    report = shell.ok(*words, "--split", "more", "--json").json
    assert report["usage"]["limit"] in ("read", "decode", "encode", "write")
    assert report["reasons"]["n_workers"] == "auto, one a core"


def test_the_bar_counts_failed_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("torch.cuda.utilization", lambda name: 87)
    with _render.ingesting("train", 50, "cuda:0") as (advance, on_failed):
        on_failed(2)
        on_failed(1)
        advance(50, {"decode": 3.0, "encode": 1.0})
    shown = capsys.readouterr().err
    assert "ingest train, 3 failed, GPU 87%" in shown
    assert "decode 75% encode 25%" in shown
