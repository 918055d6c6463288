"""Settings of samplers compared with their defaults, by a backtest of the training rows of several problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.accuracy.problems import problem
from bench.case import Size
from bench.records import latest_records
from ltstore.backtest import Candidate, Member, run_backtest
from ltstore.rows import ArrayRows
from ltstore.sampling import make_sampler
from ltstore.stats import class_moments

Record = dict[str, Any]
Key = tuple[str, int, str, str]
PROBLEMS: dict[str, tuple[int, ...]] = {
    "digits": (0, 1, 2),
    "caltech101": (0,),
    "dtd-lt": (0, 1, 2),
    "cifar100-lt-if100": (0,),
    "cifar100-lt-if10": (0,),
}
"""Problems whose training rows are used, with the seeds of their cuts."""
N_TRIALS = 8
DEFAULT = "default"
ESTIMATES = (0.5, 1.0, 4.0)
"""kappa of the mean pull as a multiple of its estimate; the default is 2."""

Settings = dict[str, Any]
_COVARIANCE: dict[str, Settings] = {
    "nu 5": {"nu": 5.0},
    "nu 100": {"nu": 100.0},
    "donor_share 0": {"donor_share": 0.0},
    "donor_share 1": {"donor_share": 1.0},
}
_PULL: dict[str, Settings] = {"pull 0": {"pull": 0.0}, "pull 0.5": {"pull": 0.5}, "pull 0.8": {"pull": 0.8}}
_COUNTS: dict[str, Settings] = {f"max_ratio {n}": {"max_ratio": float(n)} for n in (1, 4, 16)}
STUDIES: dict[str, dict[str, Settings]] = {
    "neighbor-gauss": {
        **_PULL,
        **_COVARIANCE,
        "anchor 0": {"anchor": 0.0},
        "anchor 0.8": {"anchor": 0.8},
        "spread 0.7": {"spread": 0.7},
        "spread 1.3": {"spread": 1.3},
        "noise residuals": {"noise": "residuals"},
        "noise residuals, terms 1": {"noise": "residuals", "terms": 1},
        "noise residuals, terms 8": {"noise": "residuals", "terms": 8},
        **_COUNTS,
    },
    "vmf": {**_PULL, **_COVARIANCE, **_COUNTS},
    "kde": {
        "bandwidth 0": {"bandwidth": 0.0},
        "bandwidth 1": {"bandwidth": 1.0},
        "bandwidth 2": {"bandwidth": 2.0},
        **_COVARIANCE,
        **_COUNTS,
    },
}
"""What is tried of each sampler, one setting at a time; `ESTIMATES` come besides where the mean is pulled."""


def key(record: Record) -> Key:
    """Return (problem, seed, size, sampler): the records of one backtest."""
    return record["problem"], record["seed"], record["size"], record["sampler"]


def read_records(paths: Iterable[Path]) -> list[Record]:
    """Return the records of files of JSON lines; of a backtest that was run twice the later one counts.

    Raises
    ------
    ValueError
        A line is no record of a study; names file and line.
    """
    found = latest_records(paths, lambda record: (key(record), record["setting"]), "a study of defaults")
    return list(found.values())


def run_study(
    name: str,
    sampler: str,
    *,
    data: Path | None = None,
    seed: int = 0,
    size: Size = "full",
    n_trials: int = N_TRIALS,
) -> Iterator[Record]:
    """Backtest the settings of a sampler on the training rows of a problem; yield a record for each.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        As `bench.accuracy.problems.problem`; or there is no study of that sampler.
    """
    if sampler not in STUDIES:
        raise KeyError(f"no study of {sampler!r}; known: {', '.join(STUDIES)}")
    posed = problem(name, data, seed, size)
    rows = ArrayRows(
        posed.train.X, posed.train.y, class_names=list(map(str, range(posed.n_classes))), normalize=True
    )
    tried: dict[str, Settings] = {DEFAULT: {}, **STUDIES[sampler], **_estimates(rows, sampler)}
    candidates = {label: Candidate(members=(_member(sampler, settings),)) for label, settings in tried.items()}
    card = run_backtest(rows, candidates=list(candidates.values()), n_trials=n_trials, seed=seed)
    found = {result.candidate.name: result for result in card.results}
    for label, candidate in candidates.items():
        result = found[candidate.name]
        yield {
            "problem": posed.name,
            "seed": seed,
            "size": size,
            "sampler": sampler,
            "setting": label,
            "settings": tried[label],
            "encoder": posed.encoder,
            "n_trials": card.n_trials,
            **{
                word: getattr(result, word)
                for word in ("score", "head", "tail", "gain", "gain_low", "gain_high")
            },
            "seconds": card.seconds,
            "machine": machine.machine(),
            "versions": machine.versions(),
            "commit": machine.commit(),
            "date": machine.today(),
        }


def _member(sampler: str, settings: Settings) -> Member:
    own = {name: value for name, value in settings.items() if name != "max_ratio"}
    return Member(sampler=sampler, sampler_settings=own, max_ratio=settings.get("max_ratio"))


def _estimates(rows: ArrayRows, sampler: str) -> dict[str, Settings]:
    """Fixed pulls at multiples of what the rows say; the sampler's default is twice the estimate."""
    moments = class_moments(rows)
    fitted = make_sampler(sampler).fit(rows, moments)
    twice = fitted.settings.get("pull_rows")
    if twice is None:
        return {}
    return {f"pull_rows {m:g} x estimate": {"pull_rows": m * twice / 2} for m in ESTIMATES}


def tables(records: Sequence[Record]) -> str:
    """Return a table for each sampler: gain over its default in points with 95 % intervals, and the mean of them.

    A problem's gain is the mean over its seeds; half-widths are added up as those of independent figures.
    """
    full = [record for record in records if record["size"] == "full"]
    return "\n".join(
        _table(sampler, [record for record in full if record["sampler"] == sampler])
        for sampler in STUDIES
        if any(record["sampler"] == sampler for record in full)
    )


def _table(sampler: str, records: Sequence[Record]) -> str:
    names = [name for name in PROBLEMS if any(record["problem"] == name for record in records)]
    n_trials = sorted({record["n_trials"] for record in records})
    lines = [
        f"`{sampler}` ({' or '.join(map(str, n_trials))} trials; {', '.join(sorted({r['date'] for r in records}))}):\n",
        f"| setting | {' | '.join(names)} | mean |",
        f"|---|{'---|' * len(names)}---|",
    ]
    for setting in dict.fromkeys(record["setting"] for record in records):
        row = [[r for r in records if (r["setting"], r["problem"]) == (setting, name)] for name in names]
        if setting == DEFAULT:
            scores = (f"{_percent(each, 'head')} / {_percent(each, 'tail')}" for each in row)
            lines.append(f"| default: kept / cut classes | {' | '.join(scores)} | |")
            continue
        gains = [_mean([(r["gain"], (r["gain_high"] - r["gain_low"]) / 2) for r in each]) for each in row]
        lines.append(f"| {setting} | {' | '.join(_gain(*each) for each in gains)} | {_gain(*_mean(gains))} |")
    return "\n".join(lines) + "\n"


def _mean(gains: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of (value, half-width) pairs, and the half-width of it."""
    values, halves = np.array(gains).T
    return float(values.mean()), float(np.sqrt(np.square(halves).sum()) / len(halves))


def _percent(records: Sequence[Record], word: str) -> str:
    return f"{100 * np.mean([record[word] for record in records]):.1f}"


def _gain(value: float, half: float) -> str:
    """Points with the half-width of the interval, in bold where 0 is outside."""
    text = f"{100 * value:+.1f} ± {100 * half:.1f}"
    return f"**{text}**" if abs(value) > half else text
