"""python -m bench list, run, compare, page, regenerate, accuracy, accuracy-page, defaults, rules, methods-page."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import show
from bench.accuracy import command
from bench.case import all_cases, select_cases
from bench.compare import compare, machines_differ, read_records
from bench.documents import pages
from bench.machine import ROOT, today
from bench.page import page
from bench.peers import PEERS
from bench.run import Record, pin, run_apart, run_case
from bench.timing import WrongResultError

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="name the cases")
    run = actions.add_parser(
        "run", help="run cases and print a table, or JSON lines where stdout is not a terminal"
    )
    run.add_argument("cases", nargs="*", metavar="CASE", help="groups or names; default all")
    run.add_argument("--size", choices=("toy", "full"), default="full")
    run.add_argument("--against", default="", metavar="PEER,...", help="only these peers")
    run.add_argument("--json", action="store_true", help="JSON lines even on a terminal")
    run.add_argument("--out", type=Path, help="also append the JSON lines to this file")
    run.add_argument("--dir", type=Path, help="make data here, not in the system's temporary directory")
    run.add_argument("--here", action="store_true", help="in this process, not one process per case")
    changes = actions.add_parser("compare", help="how the ratios of B differ from those of A")
    changes.add_argument("before", type=Path, metavar="A.jsonl")
    changes.add_argument("after", type=Path, metavar="B.jsonl")
    changes.add_argument("--json", action="store_true")
    write = actions.add_parser("page", help="write docs/benchmarks.md from results")
    write.add_argument("results", nargs="*", type=Path, help="default: all of bench/results")
    write.add_argument("--out", type=Path, default=PAGE)
    every = actions.add_parser("regenerate", help="write every page of figures from the committed results")
    every.add_argument("--measure", action="store_true", help="measure everything anew before: hours")
    every.add_argument("--data", type=Path, metavar="DIR", help="with --measure: the folder with the data sets")
    command.add_to(actions)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say; return the exit code."""
    given = _parser().parse_args(words)
    try:
        if given.action == "list":
            show.cases(all_cases())
        elif given.action == "run":
            _run(given)
        elif given.action == "compare":
            _compare(given)
        elif given.action == "regenerate":
            _regenerate(given)
        elif given.action in command.ACTIONS:
            command.act(given)
        else:
            files = given.results or sorted(RESULTS.glob("*.jsonl"))
            given.out.write_text(page(all_cases(), read_records(files)), encoding="utf-8")
    except (WrongResultError, RuntimeError, ValueError, OSError, KeyError) as err:
        print(f"error: {err.args[0] if isinstance(err, KeyError) else err}", file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace) -> None:
    against = [word for word in given.against.split(",") if word]
    if unknown := sorted(set(against) - set(PEERS)):
        raise ValueError(f"unknown peer {unknown[0]!r} after --against; known: {', '.join(PEERS)}")
    cases = select_cases(given.cases)
    if given.dir:
        os.environ["TMPDIR"] = tempfile.tempdir = str(given.dir.resolve(strict=True))
    if given.here:
        if len(cases) == 1 and given.size == "full":
            pin(cases[0].cores)
        records: Iterator[Record] = (record for case in cases for record in run_case(case, given.size, against))
    else:
        records = run_apart(cases, given.size, against)
    lines = given.json or not sys.stdout.isatty()
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
    table = show.LiveTable()
    for record in records:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        if given.out:
            with given.out.open("a", encoding="utf-8") as handle:
                handle.write(text + "\n")
        if lines:
            print(text, flush=True)
        else:
            table.add(record)
    if not lines:
        table.end()


def _regenerate(given: argparse.Namespace) -> None:
    if given.measure:
        data = [] if given.data is None else ["--data", str(given.data)]
        steps = [["run", "--out", str(RESULTS / f"{today()}-all.jsonl")]]
        steps += [[name, *data, "--force"] for name in ("defaults", "rules", "accuracy")]
        for words in steps:
            if main(words):
                raise RuntimeError(f"no page was written, as `python -m bench {' '.join(words)}` failed")
    for path, text in pages(RESULTS).items():
        path.write_text(text, encoding="utf-8")


def _compare(given: argparse.Namespace) -> None:
    before, after = read_records([given.before]), read_records([given.after])
    changes = compare(before, after)
    if given.json or not sys.stdout.isatty():
        for change in changes:
            print(json.dumps(asdict(change)))
    else:
        show.changes(changes)
    if machines_differ(before, after):
        print("note: the two were taken on different machines", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
