"""python -m bench accuracy | accuracy-page | defaults | defaults-page."""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from bench.accuracy import defaults
from bench.accuracy.page import page
from bench.accuracy.problems import PROBLEMS
from bench.accuracy.run import Record, read_records, run_problem
from bench.machine import ROOT, today

RESULTS = ROOT / "bench" / "results" / "accuracy"
PAGE = ROOT / "docs" / "accuracy.md"
STUDIES = ROOT / "bench" / "results" / "defaults"
METHODS = ROOT / "docs" / "methods.md"
ACTIONS = ("accuracy", "accuracy-page", "defaults", "defaults-page")
MARKS = "<!-- written by `python -m bench defaults-page` -->\n", "<!-- until here -->\n"


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
    write = actions.add_parser("accuracy-page", help="write docs/accuracy.md from results")
    write.add_argument("results", nargs="*", type=Path, help="default: all of bench/results/accuracy")
    write.add_argument("--out", type=Path, default=PAGE)
    study = actions.add_parser(
        "defaults", help="backtest settings of samplers on training rows of several problems"
    )
    study.add_argument("--data", type=Path, metavar="DIR", help="as for accuracy")
    study.add_argument("--problems", default=",".join(defaults.PROBLEMS), metavar="NAME,...")
    study.add_argument("--samplers", default=",".join(defaults.STUDIES), metavar="NAME,...")
    study.add_argument("--trials", type=int, default=defaults.N_TRIALS)
    study.add_argument("--size", choices=("toy", "full"), default="full")
    study.add_argument(
        "--out", type=Path, help="append to this file; default bench/results/defaults/DATE.jsonl"
    )
    study.add_argument("--force", action="store_true", help="also what has a record there")
    tables = actions.add_parser("defaults-page", help="write the tables of docs/methods.md from results")
    tables.add_argument("results", nargs="*", type=Path, help="default: all of bench/results/defaults")
    tables.add_argument("--out", type=Path, default=METHODS)


def act(given: argparse.Namespace) -> None:
    """Do what the words say."""
    if given.action == "accuracy":
        _run(given)
    elif given.action == "defaults":
        _study(given)
    elif given.action == "accuracy-page":
        found = read_records(given.results or sorted(RESULTS.glob("*.jsonl")))
        given.out.write_text(page(list(found.values())), encoding="utf-8")
    else:
        records = defaults.read_records(given.results or sorted(STUDIES.glob("*.jsonl")))
        given.out.write_text(
            between_marks(given.out.read_text(encoding="utf-8"), defaults.tables(records)), encoding="utf-8"
        )


def between_marks(text: str, tables: str) -> str:
    """Return the text with what stands between its marks replaced.

    Raises
    ------
    ValueError
        The text has no such marks.
    """
    before, opening, rest = text.partition(MARKS[0])
    _, closing, after = rest.partition(MARKS[1])
    if not closing:
        raise ValueError(
            f"the page has no place for the tables: put {MARKS[0].strip()} and {MARKS[1].strip()} there"
        )
    return f"{before}{opening}\n{tables}\n{closing}{after}"


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


def _study(given: argparse.Namespace) -> None:
    out = given.out or STUDIES / f"{today()}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    files = {out} if given.out else {out, *STUDIES.glob("*.jsonl")}
    there = defaults.read_records(sorted(path for path in files if path.exists()))
    known = set() if given.force else {defaults.key(record) for record in there}
    words = [[word for word in each.split(",") if word] for each in (given.problems, given.samplers)]
    for name, sampler in product(*words):
        if name not in defaults.PROBLEMS:
            raise KeyError(f"no problem {name!r} for defaults; known: {', '.join(defaults.PROBLEMS)}")
        for seed in defaults.PROBLEMS[name]:
            if (name, seed, given.size, sampler) in known:
                continue
            study = defaults.run_study(
                name, sampler, data=given.data, seed=seed, size=given.size, n_trials=given.trials
            )
            records = list(study)
            with out.open("a", encoding="utf-8") as handle:
                handle.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)
            print(
                f"{name} seed {seed}: {sampler}, {len(records)} settings, {records[0]['seconds']:.0f} s",
                flush=True,
            )


def _line(record: Record) -> str:
    few = "n/a" if record["few"] is None else f"{100 * record['few']['value']:.1f}"
    return (
        f"{record['problem']} seed {record['seed']}: {record['head']}: overall {100 * record['overall']['value']:.1f}, "
        f"few {few}, {record['seconds']['total']:.1f} s"
    )
