"""docs/tutorial.md runs from top to bottom, and what it shows is what comes; so does docs/notebook.py."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from support.shell import Shell

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def shape(line: str) -> str:
    """The words of a line, without its figures and its spacing."""
    return " ".join(NUMBER.sub("#", line).split())


def figures(line: str) -> list[float]:
    """The figures of a line but for seconds, which are the machine's."""
    timeless = re.sub(r"[\d.]+ s\b", "", line)
    return [float(number.replace(",", "")) for number in NUMBER.findall(timeless)]


def assert_shown(shown: list[str], printed: str) -> None:
    """Every line that the page shows was printed, in that order, with figures that rounding may move a little."""
    lines = iter(printed.splitlines())
    for wanted in (line for line in shown if line.strip() and line != "..."):
        found = next((line for line in lines if shape(line) == shape(wanted)), None)
        assert found is not None, f"not printed: {wanted}\n{printed}"
        assert figures(found) == pytest.approx(figures(wanted), rel=0.02, abs=2), (found, wanted)


def test_the_tutorial_runs(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    said = []
    n_commands = 0
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", page, re.DOTALL):
        if kind == "python":
            capsys.readouterr()
            exec(compile(block, "docs/tutorial.md", "exec"), {})
            said.append(capsys.readouterr().out.strip())
        elif "pip install" not in block:
            command, *shown = block.splitlines()
            result = shell.ok(*shlex.split(command.removeprefix("$ ltstore ")))
            assert_shown(shown, result.out + result.err)
            n_commands += 1
    assert n_commands == 10
    assert said[0] == ""
    assert re.fullmatch(r"five 9\d\.\d%", said[1])
    assert Path("report.html").stat().st_size > 10_000


def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(DOCS / "notebook.py"))
    plain, adjusted, synthetic = (model.evaluation for model in names["result"].models)
    assert adjusted.balanced.value > plain.balanced.value
    assert synthetic.balanced.value > plain.balanced.value
    assert names["lent"]["nine"][:3] == ["three", "two", "one"]
    assert names["answers"]["five"] == "five"
    assert "synthetic" in capsys.readouterr().out
