"""docs/when-not-to-use.md quotes docs/accuracy.md: no gain stands there that was not measured."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
GAIN = re.compile(r"[+-]\d+\.\d+\s\[[+-]\d+\.\d+, [+-]\d+\.\d+\]")


def test_every_gain_is_one_of_the_accuracy_page() -> None:
    quoted, measured = (
        {" ".join(gain.split()) for gain in GAIN.findall((DOCS / page).read_text(encoding="utf-8"))}
        for page in ("when-not-to-use.md", "accuracy.md")
    )
    assert len(quoted) >= 12
    assert quoted <= measured, quoted - measured


def test_the_table_is_that_of_neighbor_gauss() -> None:
    page, accuracy = (
        (DOCS / name).read_text(encoding="utf-8") for name in ("when-not-to-use.md", "accuracy.md")
    )
    measured = {
        tuple(cell.strip("* ") for cell in line.split("|")[7:9])
        for line in accuracy.splitlines()
        if line.startswith("| neighbor-gauss |")
    }
    rows = [line.split("|") for line in page.splitlines() if line.startswith("|") and GAIN.search(line)]
    assert len(rows) == 6
    for row in rows:
        over_la, few = (cell.strip() for cell in row[4:6])
        assert (over_la, few.replace("no such classes", "n/a")) in measured, row
