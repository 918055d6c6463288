"""docs/security.md: the tests that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_names_tests_that_are_there() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    links = set(re.findall(r"\]\(([^)#][^)]*)\)", text))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    named = set(re.findall(r"(?:fault|unit)/test_\w+\.py", text))
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
    written = {path.name for path in (ROOT / "tests" / "fault").glob("test_security_*.py")}
    assert written <= {name.rpartition("/")[2] for name in named}
