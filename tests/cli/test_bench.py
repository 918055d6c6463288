"""`ltstore bench` runs the checkout's benchmarks, and says so where there are none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.shell import Shell


def _bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ltstore_cli.app", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_bench_runs_a_case_at_toy_size() -> None:
    result = _bench("sample.rows", "--size", "toy", "--json")
    assert result.returncode == 0, result.stderr
    assert {json.loads(line)["case"] for line in result.stdout.splitlines()} == {"sample.rows"}


def test_bench_without_a_checkout_is_one_clear_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ltstore.__file__", str(tmp_path / "site-packages" / "ltstore" / "__init__.py"))
    result = shell("bench", "read")
    assert result.code == 1
    assert result.err.startswith("error: benchmarks come with the source checkout")
    assert result.err.count("\n") == 1


def test_bench_passes_on_what_was_wrong(shell: Shell) -> None:
    result = _bench("raed")
    assert result.returncode == 1
    assert "no case or group 'raed'" in result.stderr
    assert "--size must be toy or full" in shell("bench", "--size", "huge").err


def test_bench_lists_and_compares(tmp_path: Path) -> None:
    listed = _bench("list")
    assert listed.returncode == 0
    assert "scale.train" in listed.stdout
    results = next((Path(__file__).parents[2] / "bench" / "results").glob("*-read.jsonl"))
    changes = [
        json.loads(line) for line in _bench("compare", str(results), str(results), "--json").stdout.splitlines()
    ]
    assert changes
    assert {change["change"] for change in changes} == {1.0}
