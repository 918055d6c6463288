"""python -m bench accuracy | accuracy-page | defaults | rules | methods-page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from bench.accuracy import defaults, rules
from bench.accuracy.page import page
from bench.accuracy.problems import PROBLEMS
from bench.accuracy.run import Record, read_records, run_problem
from bench.machine import ROOT, today

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "accuracy.md"
METHODS = ROOT / "docs" / "methods.md"
ACTIONS = ("accuracy", "accuracy-page", "defaults", "rules", "methods-page")


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
    write.add_argument("--results", type=Path, default=RESULTS, help="folder that holds accuracy/*.jsonl")
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
    choose = actions.add_parser("rules", help="compare rules of choosing from a backtest, on training rows")
    choose.add_argument("--data", type=Path, metavar="DIR", help="as for accuracy")
    choose.add_argument("--problems", default=",".join(rules.PROBLEMS), metavar="NAME,...")
    choose.add_argument("--cards", type=int, default=rules.N_CARDS, help="backtests of each set of rows")
    choose.add_argument("--size", choices=("toy", "full"), default="full")
    choose.add_argument("--out", type=Path, help="append to this file; default bench/results/rules/DATE.jsonl")
    choose.add_argument("--force", action="store_true", help="also what has a record there")
    tables = actions.add_parser("methods-page", help="write the tables of docs/methods.md from results")
    tables.add_argument(
        "--results", type=Path, default=RESULTS, help="holds defaults/*.jsonl and rules/*.jsonl"
    )
    tables.add_argument("--out", type=Path, default=METHODS)


def act(given: argparse.Namespace) -> None:
    """Do what the words say."""
    if given.action == "accuracy":
        _run(given)
    elif given.action == "defaults":
        _study(given)
    elif given.action == "rules":
        _rules(given)
    elif given.action == "accuracy-page":
        given.out.write_text(accuracy_page(given.results), encoding="utf-8")
    else:
        text = given.out.read_text(encoding="utf-8")
        given.out.write_text(with_tables(text, given.results), encoding="utf-8")


def accuracy_page(results: Path) -> str:
    """Return docs/accuracy.md as the results in a folder have it."""
    return page(list(read_records(sorted(results.glob("accuracy/*.jsonl"))).values()))


def with_tables(text: str, results: Path) -> str:
    """Return the text of docs/methods.md with the tables that the results in a folder give."""
    studies = defaults.read_records(sorted(results.glob("defaults/*.jsonl")))
    judged = rules.read_records(sorted(results.glob("rules/*.jsonl")))
    return between_marks(
        between_marks(text, "defaults", defaults.tables(studies)), "rules", rules.table(judged)
    )


def between_marks(text: str, name: str, table: str, by: str = "methods-page") -> str:
    """Return the text with what stands between the marks of a table replaced.

    Raises
    ------
    ValueError
        The text has no such marks.
    """
    marks = f"<!-- {name}: written by `python -m bench {by}` -->\n", f"<!-- {name}: end -->\n"
    before, opening, rest = text.partition(marks[0])
    _, closing, after = rest.partition(marks[1])
    if not closing:
        raise ValueError(
            f"the page has no place for its table: put {marks[0].strip()} and {marks[1].strip()} there"
        )
    return f"{before}{opening}\n{table}\n{closing}{after}"


def _run(given: argparse.Namespace) -> None:
    names = [word for word in given.problems.split(",") if word] or list(PROBLEMS)
    if unknown := sorted(set(names) - set(PROBLEMS)):
        raise KeyError(f"no problem {unknown[0]!r}; known: {', '.join(PROBLEMS)}")
    if given.data is not None and not given.data.is_dir():
        raise FileNotFoundError(f"{given.data} is no folder: --data names the one with the data sets")
    out, files = _files(given, "accuracy")
    there = {} if given.force else read_records(files)
    heads = [word.strip() for word in given.heads.split(";") if word.strip()]
    for name in names:
        seeds = [int(word) for word in given.seeds.split(",") if word] or PROBLEMS[name].seeds
        for seed in seeds:
            for record in run_problem(name, seed, data=given.data, size=given.size, heads=heads, there=there):
                _append(out, [record])
                print(_line(record), flush=True)


def _study(given: argparse.Namespace) -> None:
    out, files = _files(given, "defaults")
    known = set() if given.force else {defaults.key(record) for record in defaults.read_records(files)}
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
            records = _append(out, study)
            print(
                f"{name} seed {seed}: {sampler}, {len(records)} settings, {records[0]['seconds']:.0f} s",
                flush=True,
            )


def _rules(given: argparse.Namespace) -> None:
    out, files = _files(given, "rules")
    known = set() if given.force else {rules.key(record) for record in rules.read_records(files)}
    for name in filter(None, given.problems.split(",")):
        if name not in rules.PROBLEMS:
            raise KeyError(f"no problem {name!r} for rules; known: {', '.join(rules.PROBLEMS)}")
        for seed in rules.PROBLEMS[name]:
            if (name, seed, given.size) in known:
                continue
            records = _append(
                out, rules.run_rules(name, data=given.data, seed=seed, size=given.size, n_cards=given.cards)
            )
            print(f"{name} seed {seed}: {len(records)} rules, {records[0]['seconds']:.0f} s", flush=True)


def _files(given: argparse.Namespace, folder: str) -> tuple[Path, list[Path]]:
    """Return the file to append to, and those whose records count as there."""
    out: Path = given.out or RESULTS / folder / f"{today()}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    files = {out} if given.out else {out, *RESULTS.glob(f"{folder}/*.jsonl")}
    return out, sorted(path for path in files if path.exists())


def _append(out: Path, made: Iterable[Record]) -> list[Record]:
    """Write records as lines, once all are made, and return them."""
    records = list(made)
    with out.open("a", encoding="utf-8") as handle:
        handle.writelines(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    return records


def _line(record: Record) -> str:
    few = "n/a" if record["few"] is None else f"{100 * record['few']['value']:.1f}"
    return (
        f"{record['problem']} seed {record['seed']}: {record['head']}: overall {100 * record['overall']['value']:.1f}, "
        f"few {few}, {record['seconds']['total']:.1f} s"
    )
