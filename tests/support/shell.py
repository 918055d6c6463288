"""Run the command line in this process, as a user would from a shell."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Result:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document."""
        return json.loads(self.out)


class Shell:
    """Call with the words after `ltstore`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("NO_COLOR", "1")

    def __call__(self, *words: str) -> Result:
        """Run one command; an exit code other than that of `ok` is the caller's to check."""
        from ltstore_cli.app import main

        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["ltstore", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = self._capsys.readouterr()
        return Result(code, out, err)

    def ok(self, *words: str) -> Result:
        """Run one command that must exit 0."""
        result = self(*words)
        assert result.code == 0, f"ltstore {' '.join(map(str, words))}: {result.code}\n{result.err}"
        return result
