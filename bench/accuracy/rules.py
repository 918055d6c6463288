"""How to choose from a backtest: rules compared by what their choice gains in backtests that they did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.accuracy.problems import problem
from bench.case import Size
from bench.records import latest_records
from ltstore.backtest import Card, Result, run_backtest
from ltstore.rows import ArrayRows

Record = dict[str, Any]
Key = tuple[str, int, str]
PROBLEMS: dict[str, tuple[int, ...]] = {
    "digits": (0, 1, 2),
    "dtd-lt": (0, 1, 2),
    "caltech101": (0,),
    "cifar100-lt-if100": (0,),
}
"""Problems whose training rows are used, with the seeds of their cuts."""
N_CARDS = 6
FIXED_LEAN = 0.25


def key(record: Record) -> Key:
    """Return (problem, seed, size): the records of one set of rows."""
    return record["problem"], record["seed"], record["size"]


def _la(card: Card) -> Result:
    return next(each for each in card.results if each.candidate.name == "la")


def _widest(card: Card) -> list[Result]:
    """Results of the base with the most members, best score first."""
    most = max(len(each.candidate.members) for each in card.results)
    return [each for each in card.results if len(each.candidate.members) == most]


RULES: dict[str, Callable[[Card], Result]] = {
    "**as it is**": lambda card: card.choice,
    "as it is, or `la` unless its gain is above 0 at 95 %": lambda card: (
        card.choice if card.choice.gain_low > 0 else _la(card)
    ),
    "best score": lambda card: card.results[0],
    "best tail of all within one standard error": lambda card: max(
        (each for each in card.results if each.equal), key=lambda each: each.tail
    ),
    "widest blend, lean of the best score": lambda card: _widest(card)[0],
    f"widest blend, lean {FIXED_LEAN:g}, no backtest": lambda card: next(
        each for each in _widest(card) if each.candidate.posthoc_tau == FIXED_LEAN
    ),
    "`la`, lean of the best score": lambda card: next(
        each for each in card.results if each.candidate.base == "la"
    ),
}
"""By what is printed; each takes a card and returns one of its results."""


def read_records(paths: Iterable[Path]) -> list[Record]:
    """Return the records of files of JSON lines; of two of one rule on one set of rows the later one counts.

    Raises
    ------
    ValueError
        A line is no record of a rule; names file and line.
    """
    return list(latest_records(paths, lambda record: (key(record), record["rule"]), "a rule").values())


def run_rules(
    name: str, *, data: Path | None = None, seed: int = 0, size: Size = "full", n_cards: int = N_CARDS
) -> Iterator[Record]:
    """Backtest the training rows of a problem with several seeds; yield a record for each rule.

    What a rule chooses from one card is judged by its gain over plain logit adjustment in the other cards, whose
    trials cut other classes and hide other rows.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        As `bench.accuracy.problems.problem`; or fewer than two cards are asked for.
    """
    if n_cards < 2:
        raise ValueError(f"a rule is judged by other cards than its own: make 2 or more, found {n_cards}")
    posed = problem(name, data, seed, size)
    rows = ArrayRows(
        posed.train.X, posed.train.y, class_names=list(map(str, range(posed.n_classes))), normalize=True
    )
    cards = [run_backtest(rows, seed=1000 + number) for number in range(n_cards)]
    by_name = [{result.candidate.name: result for result in card.results} for card in cards]
    for word, rule in RULES.items():
        chosen = [rule(card).candidate.name for card in cards]
        others = [
            (by_name[j][pick], by_name[j]["la"])
            for i, pick in enumerate(chosen)
            for j in range(n_cards)
            if i != j
        ]
        gains = [each.gain for each, _ in others]
        yield {
            "problem": posed.name,
            "seed": seed,
            "size": size,
            "rule": word,
            "n_cards": n_cards,
            "n_trials": cards[0].n_trials,
            "gain": float(np.mean(gains)),
            "worst": float(np.min(np.mean(np.reshape(gains, (n_cards, -1)), axis=1))),
            "head_gain": float(np.mean([each.head - la.head for each, la in others])),
            "tail_gain": float(np.mean([each.tail - la.tail for each, la in others])),
            "chosen": chosen,
            "seconds": sum(card.seconds for card in cards),
            "machine": machine.machine(),
            "versions": machine.versions(),
            "commit": machine.commit(),
            "date": machine.today(),
        }


def table(records: Sequence[Record]) -> str:
    """Return a table: gain in score and over cut classes in points, by rule and problem, and the mean over problems."""
    full = [record for record in records if record["size"] == "full"]
    if not full:
        return "Not measured yet.\n"
    names = [name for name in PROBLEMS if any(record["problem"] == name for record in full)]
    lines = [f"| rule | {' | '.join(names)} | mean |", f"|---|{'---|' * len(names)}---|"]
    for rule in RULES:
        row = [[r for r in full if (r["rule"], r["problem"]) == (rule, name)] for name in names]
        if not all(row):
            continue
        pairs = [(np.mean([r["gain"] for r in each]), np.mean([r["tail_gain"] for r in each])) for each in row]
        cells = [f"{100 * score:+.1f} / {100 * tail:+.1f}" for score, tail in [*pairs, np.mean(pairs, axis=0)]]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    dates = ", ".join(sorted({record["date"] for record in full}))
    cards = ", ".join(sorted({str(record["n_cards"]) for record in full}))
    return "\n".join([*lines, f"\n({cards} backtests of each set of rows, {dates}.)\n"])
