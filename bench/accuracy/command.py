"""python -m bench accuracy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.accuracy.problems import PROBLEMS
from bench.accuracy.run import Record, read_records, run_problem
from bench.machine import ROOT, today

RESULTS = ROOT / "bench" / "results" / "accuracy"
ACTIONS = ("accuracy",)


def add_to(actions: Any) -> None:
    """Add the words of this table to the parser's actions."""
    run = actions.add_parser("accuracy", help="train and judge the heads of the accuracy table")
    run.add_argument("--data", type=Path, metavar="DIR", help="the folder with the data sets; digits need none")
    run.add_argument(
        "--problems", default="", metavar="NAME,...", help=f"of {', '.join(PROBLEMS)}; default all"
    )
    run.add_argument("--seeds", default="", metavar="N,...", help="default: those of each problem")
    run.add_argument("--heads", default="", metavar="NAME;...", help="only these heads")
    run.add_argument("--size", choices=("toy", "full"), default="full")
    run.add_argument("--out", type=Path, help="append to this file; default bench/results/accuracy/DATE.jsonl")
    run.add_argument("--force", action="store_true", help="also what has a record there")


def act(given: argparse.Namespace) -> None:
    """Do what the words say."""
    _run(given)


def _run(given: argparse.Namespace) -> None:
    names = [word for word in given.problems.split(",") if word] or list(PROBLEMS)
    if unknown := sorted(set(names) - set(PROBLEMS)):
        raise KeyError(f"no problem {unknown[0]!r}; known: {', '.join(PROBLEMS)}")
    if given.data is not None and not given.data.is_dir():
        raise FileNotFoundError(f"{given.data} is no folder: --data names the one with the data sets")
    out = given.out or RESULTS / f"{today()}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    files = {out} if given.out else {out, *RESULTS.glob("*.jsonl")}
    there = {} if given.force else read_records(sorted(path for path in files if path.exists()))
    heads = [word.strip() for word in given.heads.split(";") if word.strip()]
    for name in names:
        seeds = [int(word) for word in given.seeds.split(",") if word] or PROBLEMS[name].seeds
        for seed in seeds:
            for record in run_problem(name, seed, data=given.data, size=given.size, heads=heads, there=there):
                with out.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
                print(_line(record), flush=True)


def _line(record: Record) -> str:
    few = "n/a" if record["few"] is None else f"{100 * record['few']['value']:.1f}"
    return (
        f"{record['problem']} seed {record['seed']}: {record['head']}: overall {100 * record['overall']['value']:.1f}, "
        f"few {few}, {record['seconds']['total']:.1f} s"
    )
