"""docs/architecture.md names every room, and its layers are those that import-linter checks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_layers_are_those_of_import_linter() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    wanted = [line.replace("ltstore.", "") for line in contract["layers"]]
    shown = re.search(r"never one above it.*?:\n\n((?:    .*\n)+)", PAGE)
    assert shown is not None
    assert [line.strip() for line in shown[1].splitlines()] == wanted


def test_every_room_is_on_the_map() -> None:
    (rooms,) = re.findall(r"## Rooms\n\n((?:    .*\n)+)", PAGE)
    there = {
        path.stem
        for path in (ROOT / "ltstore").iterdir()
        if (path / "__init__.py").is_file() or path.suffix == ".py"
    }
    named = set(re.findall(r"\w+", rooms))
    assert there - {"__init__"} <= named
