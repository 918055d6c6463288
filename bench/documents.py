"""Every page of figures, written from the committed results alone: `python -m bench regenerate`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import plots
from bench.accuracy import command
from bench.accuracy.command import between_marks
from bench.case import all_cases
from bench.compare import read_records
from bench.machine import ROOT
from bench.page import page
from bench.run import Record
from bench.show import number, seconds

DOCS = ROOT / "docs"
_SHOWN = {
    "ce": "cross entropy",
    "ncm": "nearest class mean",
    "duplicate": "duplicated tail rows",
    "ridge": "ridge, balanced",
    "gda": "Gaussian discriminant",
    "la": "logit-adjusted",
    "neighbor-gauss": "with `neighbor-gauss` rows",
    "auto": "chosen by `--sampler auto`",
}
"""Heads of the README's table, in its words."""
_PLOT = "![What runs took, against what was said of them at most](scaling.svg)"


def pages(results: Path) -> dict[Path, str]:
    """Return {path: text} of all pages that are generated, as the results in a folder have them."""
    records = read_records(sorted(results.glob("*.jsonl")))
    scaling, readme, reproduce = DOCS / "scaling.md", ROOT / "README.md", DOCS / "reproduce.md"
    standings = reproduced_table((results / "reproduce" / "cifar100-lt.md").read_text(encoding="utf-8"))
    return {
        DOCS / "benchmarks.md": page(all_cases(), records),
        command.PAGE: command.accuracy_page(results),
        command.METHODS: command.with_tables(command.METHODS.read_text(encoding="utf-8"), results),
        scaling: between_marks(
            scaling.read_text(encoding="utf-8"), "scale", scale_table(records), by="regenerate"
        ),
        reproduce: between_marks(reproduce.read_text(encoding="utf-8"), "heads", standings, by="regenerate"),
        readme: between_marks(
            readme.read_text(encoding="utf-8"), "heads", short_table(standings), by="regenerate"
        ),
        DOCS / "benchmarks.svg": plots.ratios(records),
        DOCS / "scaling.svg": plots.scaling(_estimates(records)),
        DOCS / "cli.md": _cli(),
    }


def reproduced_table(text: str) -> str:
    """Return the table of a results.md that `ltstore reproduce` wrote."""
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith("|"))


def short_table(table: str) -> str:
    """Return the heads that the README shows, of a table of `reproduced_table`: groups without intervals."""
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    groups = ("many", "medium", "few")
    lines = [f"| head | overall | {' | '.join(groups)} |", "|---|---|---|---|---|"]
    for head, words in _SHOWN.items():
        figures = [found[head][group].partition(" ")[0] for group in groups]
        lines.append(f"| {words} | {found[head]['overall'].partition(' (')[0]} | {' | '.join(figures)} |")
    return "\n".join([*lines, ""])


def scale_table(records: Sequence[Record]) -> str:
    """Return what runs took beside what was said of them at most, a row each."""
    lines = [
        "| rows x features, classes | moments | train, 3 passes | evaluate | memory | disk |",
        "|---|---|---|---|---|---|",
    ]
    found = _estimates(records)
    for variant in dict.fromkeys(each["variant"] for each in found):
        cells = {
            each["candidate"].partition(",")[0]: _cell(each) for each in found if each["variant"] == variant
        }
        names = ("moments", "train", "evaluate", "memory", "disk")
        lines.append(f"| {variant} | {' | '.join(cells.get(name, '') for name in names)} |")
    where = dict.fromkeys(
        f"{each['machine']['cpu']}, one core of {each['machine']['cores']}, {each['date']}" for each in found
    )
    return "\n".join([*lines, "", f"({'; '.join(where)}; taken / said at most)", "", _PLOT, ""])


def _estimates(records: Sequence[Record]) -> list[Record]:
    """Return those of runs of full size beside what was said of them."""
    return [
        each for each in records if each["kind"] == "estimate" and each["size"] == "full" and "said" in each
    ]


def _cell(record: Record) -> str:
    taken, said = record["ratio"]["p50"] * record["said"], record["said"]
    if record["candidate"].startswith(("memory", "disk")):
        return f"{number(taken / 1e9)} / {number(said / 1e9)} GB"
    return f"{seconds(taken)} / {seconds(said)}"


def _cli() -> str:
    words = [sys.executable, "-m", "typer", "ltstore_cli.app", "utils", "docs", "--name", "ltstore"]
    made = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return made.strip() + "\n"
