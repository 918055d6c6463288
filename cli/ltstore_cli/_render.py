"""The only place that prints. Results go to stdout, progress and notes to stderr.

Keys, class names and errors are the words of others: what does not print in them (terminal escapes, line ends, marks
that turn the direction of text) is shown as its escape.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    from ltstore.encode import IngestReport, Usage
    from ltstore.linear import PassRecord
    from ltstore.metrics import Difference, Estimate
    from ltstore.quality import Quality
    from ltstore.sampling.acceptance import AcceptanceRates
    from ltstore.store import Problem, Repair, VerifyReport
    from ltstore.transfer import ExportReport, ImportReport
    from ltstore.types import Encoder
    from ltstore.workflow import (
        BacktestOutcome,
        CostEstimate,
        EnsembleResult,
        EvaluateResult,
        IndexResult,
        ModelExport,
        Prediction,
        QuickstartResult,
        Reproduction,
        TrainOutcome,
    )
    from ltstore.workflow.cost import Cost
    from ltstore.workflow.seeds import SeedGroup


_UNPRINTED_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Return a text with what does not print as its escape: "\x1b[2J" for the one that clears a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def line(text: str = "") -> None:
    """Print one plain line on stdout."""
    print(plain(text))


def note(text: str) -> None:
    """Print one plain line on stderr: what was decided, what to do next."""
    print(plain(text), file=sys.stderr)


def error(text: str) -> None:
    """Print the one line of an error on stderr."""
    flat = " ".join(text.split("\n"))
    print(f"error: {plain(flat)}", file=sys.stderr)


def warning(text: str) -> None:
    """Print a warning line on stderr."""
    print(f"warning: {plain(text)}", file=sys.stderr)


def show_log() -> None:
    """Let warnings of the library appear as warning lines on stderr."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warning(record.getMessage())

    log = logging.getLogger("ltstore")
    if not any(type(handler).__name__ == "Lines" for handler in log.handlers):
        log.addHandler(Lines(logging.WARNING))


def json_out(data: Any) -> None:
    """Print JSON on stdout: one document, UTF-8, never NaN."""
    print(_json(data, indent=2))


def _json(data: Any, indent: int | None = None) -> str:
    """Return JSON that any terminal and any encoder of UTF-8 takes: json itself escapes what is below a blank alone."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent)
    return _UNPRINTED_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def console() -> Console:
    """Return the stdout console; wide enough for tables when it is not a terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=180, soft_wrap=False)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    title: str | None = None,
    left: Sequence[str] = (),
    best: Mapping[str, int] | None = None,
) -> None:
    """Print a table; numbers to the right, `left` columns to the left, `best` cells ({column: row}) bold.

    Where it is wider than the terminal its columns are printed in several tables, each with the first column.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    def build(shown: Sequence[int]) -> Table:
        heading = None if title is None else Text(plain(title))
        grid = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place in shown:
            name, texts = columns[place], [columns[place], *(_cell(row[place]) for row in rows)]
            if name in left:
                grid.add_column(name)
            else:
                grid.add_column(name, justify="right", no_wrap=True, min_width=max(map(cell_len, texts)))
        for number, row in enumerate(rows):
            bold = [best is not None and best.get(columns[place]) == number for place in shown]
            cells = zip(shown, bold, strict=True)
            grid.add_row(
                *(Text(_cell(row[place]), style="bold" if is_best else "") for place, is_best in cells)
            )
        return grid

    out = console()
    unlimited = out.options.update(max_width=10_000)
    first, *waiting = range(len(columns))
    while waiting:
        shown = [first]
        while waiting:
            wider = build([*shown, waiting[0]])
            if len(shown) > 1 and Measurement.get(out, unlimited, wider).minimum > out.width:
                break
            shown.append(waiting.pop(0))
        out.print(build(shown))


def pairs(items: Sequence[tuple[str, Any]]) -> None:
    """Print label / value lines."""
    width = max((len(label) for label, _ in items), default=0)
    for label, value in items:
        print(f"{label:<{width}}  {_cell(value)}")


def settings(values: Mapping[str, Any]) -> str:
    """Return "anchor 0.5, noise gauss": what is None is left out."""
    shown = {
        key: settings(value).join("()") if isinstance(value, Mapping) else _cell(value)
        for key, value in values.items()
        if value is not None
    }
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items()) or "default settings"


def percent(value: float | None) -> str:
    """Return "54.7", or "n/a" where there is nothing to measure."""
    return "n/a" if value is None else f"{100 * value:.1f}"


def size(n_bytes: float) -> str:
    """Return bytes as "12.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _cell(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    return plain(str(value))


class Advance:
    """A `ltstore.types.Progress` that moves a bar; what it is to reach may be told later."""

    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update
        self._spent: Counter[str] = Counter()

    def __call__(self, rows: int, seconds: Mapping[str, float]) -> None:
        """Move on by some rows that took some seconds in each stage."""
        self._spent.update(seconds)
        whole = sum(self._spent.values())
        shares = (f"{stage} {100 * value / whole:.0f}%" for stage, value in self._spent.items() if whole)
        self._update(advance=rows, shares=" ".join(shares))

    def expect(self, total: int) -> None:
        """Say how many rows there will be."""
        self._update(total=total)


@contextmanager
def progress(title: str, total: int | None, unit: str = "rows") -> Iterator[Advance]:
    """Show a bar with rate, ETA and where the time goes, on a terminal's stderr; nothing elsewhere."""
    with _bar(title, total, unit) as (advance, _):
        yield advance


@contextmanager
def ingesting(split: str, total: int) -> Iterator[tuple[Advance, Callable[[int], None]]]:
    """Show a bar of images that says how many have failed so far."""
    with _bar(f"ingest {split}", total, "images") as (advance, entitle):
        n_failed = 0

        def on_failed(n_rows: int) -> None:
            nonlocal n_failed
            n_failed += n_rows
            entitle(f"ingest {split}, {n_failed:,} failed")

        yield advance, on_failed


@contextmanager
def training(n_passes: int | None) -> Iterator[tuple[Advance, Callable[[PassRecord], None]]]:
    """Show a bar of passes with loss, gap, accuracy on the holdout and share of the machine's peak, where known."""
    with _bar("train", n_passes, "passes") as (advance, entitle):
        kept: dict[str, str] = {}

        def on_pass(done: PassRecord) -> None:
            if done.gap == done.gap:  # a pass inside a line search has none
                kept["gap"] = f"gap {done.gap / max(abs(done.value), 1e-300):.1%}"
            if done.holdout_balanced == done.holdout_balanced:
                kept["holdout"] = f"holdout {100 * done.holdout_balanced:.1f}"
            words = ["train", f"loss {done.loss:.4f}", *kept.values(), f"{done.rows_per_second:,.0f} rows/s"]
            if done.share_of_peak == done.share_of_peak:
                words.append(f"{done.share_of_peak:.0%} of peak")
            entitle(" ".join(words))

        yield advance, on_pass


@contextmanager
def _bar(title: str, total: int | None, unit: str) -> Iterator[tuple[Advance, Callable[[str], None]]]:
    """Yield what moves the bar on, and what changes its title."""
    if not sys.stderr.isatty():
        yield Advance(lambda **_: None), lambda title: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    started = time.monotonic()
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _rate_column(started, unit),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[shares]}", style="dim"),
    ]
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, shares="")
        yield Advance(partial(bar.update, task)), lambda title: bar.update(task, description=title)


def _rate_column(started: float, unit: str) -> ProgressColumn:
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.completed / max(time.monotonic() - started, 1e-9):,.0f} {unit}/s")

    return Rate()


def records(items: Sequence[Mapping[str, Any]], left: Sequence[str] = ()) -> None:
    """Print equal-keyed records as a table."""
    if items:
        columns = list(items[0])
        table([c.replace("_", " ") for c in columns], [list(item.values()) for item in items], left=left)


def left_out(n_ignored: Mapping[str, int]) -> None:
    """Say which files of a folder, or members of tars, are no rows."""
    words = {
        "top_level": "images beside the class directories",
        "suffix": "files that are no images",
        "hidden": "hidden names",
        "not_a_file": "broken links",
        "linked_twice": "directories reached twice",
        "second_image": "second images of a sample",
        "lone_table": "Parquet files without their tar",
    }
    found = [f"{count:,} {words.get(name, name)}" for name, count in n_ignored.items() if count]
    if found:
        note(f"left out: {', '.join(found)}")


def ingest_summary(report: IngestReport, store: str, split: str, encoder: Encoder) -> None:
    """Print what an ingest did and what limited it."""
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items())
    kept = report.n_rows - report.n_encoded
    items: list[tuple[str, Any]] = [
        ("store", f"{store}, split {split}"),
        *(("beside it", f"{each.store}, failed {_failures(each.failures)}") for each in report.beside),
        ("encoder", f"{encoder.spec} on {encoder.device}, {encoder.identity.n_features} features"),
        (
            "rows",
            f"{report.n_rows:,}"
            + (f" ({kept:,} were there already)" if kept else "")
            + _after(report.first_row),
        ),
        ("preprocessing", ", ".join(f"{k} {v}" for k, v in encoder.identity.preprocessing.items())),
        ("failed", _failures(report.failures)),
    ]
    if report.engine:
        items.append(("workers", _workers(report.engine)))
    if report.n_encoded:
        items.append(("time", f"{report.seconds:.1f} s, {report.images_per_second:,.0f} images/s ({shares})"))
        reasons = report.reasons
        items.append(
            (
                "run with",
                f"batches of {report.batch_size} ({reasons['batch_size']}), two of them decoded ahead by "
                f"{report.n_workers} threads ({reasons['n_workers']})",
            )
        )
    if report.usage is not None:
        items.append(("limited by", _limit(report.usage)))
    pairs(items)
    if report.n_failed:
        lost = "1 image has no embedding; its row is"
        if report.n_failed > 1:
            lost = f"{report.n_failed:,} images have no embedding; their rows are"
        warning(f"{lost} kept with the reason (`ltstore info`)")


def _workers(record: Mapping[str, Any]) -> str:
    lost = f", {record['restarts']} lost and replaced" if record["restarts"] else ""
    return f"{record['n_workers']} {record['engine']}{lost}"


def limits(splits: Mapping[str, Usage]) -> None:
    """Print what limited the ingest of each split."""
    pairs([(f"{name} was limited by", _limit(found)) for name, found in splits.items()])


def _limit(found: Usage) -> str:
    words = {"read": "reading", "decode": "decoding", "encode": "the encoder", "write": "writing"}
    return (
        f"{words[found.limit]}: workers {found.workers:.0%} busy, encoder {found.encoder:.0%}, "
        f"writer {found.writer:.0%}; what helps: {found.advice}"
    )


def _after(first_row: int) -> str:
    return f", appended after {first_row:,} rows" if first_row else ""


def _failures(failures: Mapping[str, int]) -> str:
    found = {name: count for name, count in failures.items() if count}
    return ", ".join(f"{count:,} {name.lower()}" for name, count in found.items()) or "none"


def store_facts(facts: Mapping[str, Any]) -> None:
    """Print what `store_info` found."""
    encoder = facts["encoder"]
    weights = f"/{encoder['weights']}" if encoder["weights"] else ""
    pairs(
        [
            ("store", facts["path"]),
            ("format", f"version {facts['format_version']}"),
            ("encoder", f"{encoder['encoder']}:{encoder['model']}{weights}, {encoder['n_features']} features"),
            ("preprocessing", ", ".join(f"{k} {v}" for k, v in encoder["preprocessing"].items())),
            ("classes", facts["n_classes"]),
            ("size", size(facts["n_bytes"])),
        ]
    )
    rows = [
        (
            "split" if kind == "splits" else kind,
            name,
            split["n_rows"],
            split["dtype"],
            _failures(split["failures"]),
            split["classes"]["largest"],
            split["classes"]["smallest"],
            _state(split),
        )
        for kind in ("splits", "synthetic")
        for name, split in facts[kind].items()
        if "damaged" not in split
    ]
    if rows:
        columns = ("kind", "name", "rows", "dtype", "failed", "largest class", "smallest class", "state")
        table(columns, rows, left=("kind", "name", "state", "failed"))
    subsets = [
        (name, subset, entry["n_rows"], entry["classes"]["largest"], entry["classes"]["smallest"], _rule(entry))
        for name, split in facts["splits"].items()
        for subset, entry in split.get("subsets", {}).items()
    ]
    if subsets:
        table(
            ("split", "subset", "rows", "largest class", "smallest class", "rule"),
            subsets,
            left=("split", "subset", "rule"),
        )
    for kind in ("splits", "synthetic"):
        for name, split in facts[kind].items():
            if "damaged" in split:
                warning(f"{name} is damaged: {split['damaged']}")
            if order := split.get("settings", {}).get("order"):
                note(f"{name} has its rows {order}, seed {split['settings'].get('seed')}")
            if kept := split.get("quarantine"):
                note(f"{name} keeps {len(kept)} damaged things aside in quarantine: {', '.join(kept)}")
            for row in split.get("failed_rows", ()):
                note(f"{name} row {row['row']:,} failed: {row['error']}")
    for kind in ("indexes", "stats"):
        if facts[kind]:
            pairs([(kind, ", ".join(facts[kind]))])
    for name, found in facts["index_reports"].items():
        if "damaged" in found:
            warning(f"the index of {name} is damaged: {found['damaged']}")
        elif found["reached"] is False:
            recall = ", ".join(f"{group} {value:.3f}" for group, value in found["recall"].items())
            warning(
                f"the {found['kind']} index of {name} finds {recall} of the neighbours: {found['wanted']:g} was wanted"
            )


def _rule(subset: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in subset["settings"].items() if value is not None)


def _state(split: Mapping[str, Any]) -> str:
    if appending := split["appending"]:
        done = f"{appending['rows_written']:,} of {appending['n_rows']:,}"
        return f"complete; {done} more rows are being appended"
    if split["complete"]:
        times = len(split["generations"]) - 1
        return (
            f"complete, appended to {times} times"
            if times > 1
            else "complete, appended to"
            if times
            else "complete"
        )
    return f"{split['rows_written']:,} of {split['n_rows']:,} rows written; the same command again resumes"


def verify_summary(report: VerifyReport, store: str, *, repair: bool = False) -> None:
    """Print what `verify` found, and what a repair did before."""
    for step in report.repaired:
        line(f"{step.action:<11} {_where(step, store)}: {step.message}")
    for problem in report.problems:
        line(f"{_where(problem, store)}: {problem.message}")
    for text in report.notes:
        note(f"note: {text}")
    if repair:
        counts = Counter(step.action for step in report.repaired)
        line(f"repair: {', '.join(f'{count} {action}' for action, count in counts.items()) or 'nothing to do'}")
    state = "whole" if report.ok else f"damaged: {len(report.problems)} problems"
    line(f"{store}: {state}; {report.n_shards:,} shards, {size(report.n_bytes)}, {report.seconds:.1f} s")
    if not report.ok and not repair:
        note(f"`ltstore verify {store} --repair` re-makes or quarantines these")
    elif not report.ok:
        note(
            "these remain: put the named files back from a copy, or write the split again, and run this once more"
        )


def _where(found: Problem | Repair, store: str) -> str:
    chunk = getattr(found, "chunk", None)
    parts = [found.split or str(store), found.array]
    parts += [f"shard {found.shard}"] if found.shard is not None else []
    parts += [f"chunk {chunk}"] if chunk is not None else []
    parts += [f"rows {found.rows[0]:,}..{found.rows[1] - 1:,}"] if found.rows is not None else []
    return ", ".join(part for part in parts if part)


def index(result: IndexResult) -> None:
    """Print what an index is and what it finds."""
    report = result.report or {}
    recall, spent = report.get("recall", {}), report.get("milliseconds", {})
    found = ", ".join(
        f"{name} {value:.3f}" + (f" of {report['n_queries'][name]:,}" if report["n_queries"] else "")
        for name, value in recall.items()
    )
    pairs(
        [
            ("index", result.path),
            ("done", result.done),
            ("kind", f"{result.kind} ({result.reason})"),
            ("metric", result.metric),
            ("device", result.device),
            ("effort", settings(result.parameters) if result.parameters else "all rows"),
            ("recall", f"{found} ({report['queries']})" if report else "not measured: too few rows"),
            ("one query", ", ".join(f"{name} {value:.2f} ms" for name, value in spent.items()) or None),
            ("rows", f"{result.n_rows:,} x {result.n_features}"),
            ("size", size(result.n_bytes)),
            ("seconds", f"{result.seconds:.2f}"),
            *([("graph", result.graph)] if result.graph else []),
        ]
    )
    if report and not report["reached"]:
        note(f"recall {report['wanted']:g} was not reached: --kind flat is exact, and --memory may allow more")


def neighbors(name: str, answers: Sequence[Mapping[str, Any]]) -> None:
    """Print the neighbours of one query."""
    table(
        ("rank", "class", "class rows", "group", "similarity", "row", "key"),
        [
            (
                i + 1,
                a["class_name"],
                a["class_count"],
                a["group"],
                f"{a['similarity']:.4f}",
                a["row_id"],
                a["key"],
            )
            for i, a in enumerate(answers)
        ],
        title=name,
        left=("class", "group", "key"),
    )


def donors(classes: Sequence[Mapping[str, Any]], by: str, limit: int) -> None:
    """Print the donors of the smallest classes."""
    shown = classes[: limit or None]
    table(
        ("class", "rows", "group", "donors (share, similarity)"),
        [
            (
                c["class"],
                c["rows"],
                c["group"],
                ", ".join(f"{d['class']} ({d['weight']:.0%}, {d['similarity']:.2f})" for d in c["donors"]),
            )
            for c in shown
        ],
        left=("class", "group", "donors (share, similarity)"),
    )
    if not classes:
        note("no class needs a donor: no class is much larger than another")
    note(f"found by {by}; {len(shown)} of {len(classes)} borrowing classes shown")


_STOPPED = {
    "tolerance": "converged",
    "max_passes": "stopped at the limit of passes",
    "rounding": "stopped where float32 gives no more",
    "epochs": "all epochs made",
    "closed form": "",
}


def backtest_card(outcome: BacktestOutcome, limit: int) -> None:
    """Print what a backtest compared and chose."""
    card = outcome.card
    rows = []
    for place, result in enumerate(card.results):
        if limit and place >= limit and place != card.chosen:
            continue
        gain = f"{100 * result.gain:+.1f} [{100 * result.gain_low:+.1f}, {100 * result.gain_high:+.1f}]"
        values = [
            percent(value) for value in (result.score, result.head, result.tail, result.few, result.medium)
        ]
        rows.append(("->" if place == card.chosen else "", result.candidate.name, *values, gain))
    columns = ("", "candidate", "score", "kept", "cut", "few", "medium", "gain over la")
    table(columns, rows, left=("", "candidate"))
    if limit < len(card.results) and limit:
        note(f"{len(card.results) - limit} more with --limit 0")
    pairs(
        [
            ("rows", outcome.name),
            ("chosen", f"{card.choice.candidate.name}: {card.reason}"),
            ("judged on", f"{card.n_trials} trials; {card.n_head} large and {card.n_tail} small classes"),
            ("time", f"{card.seconds:.1f} s" + (" (when it was made)" if outcome.reused else "")),
        ]
    )
    note(
        "score: expected balanced accuracy in %, over large classes that were kept and large ones cut to small sizes"
    )
    note(f"card: {outcome.path}; next: ltstore train ... --sampler auto")


def quality(found: Quality) -> None:
    """Print how good synthetic rows are, group by group, beside what real rows give."""
    groups = ("many", "medium", "few", "all")
    rows = []
    for title, measured in (("held out", found.held_out), ("rows", found.made)):
        if measured is None:
            continue
        values, real = measured.averages(), measured.averages(real=True)
        for name in values:
            cells = [
                "" if values[name][g] is None else f"{values[name][g]:.2f} ({_beside(real[name][g])})"
                for g in groups
            ]
            rows.append((title, name, *cells))
            title = ""
    table(("", "synthetic (real)", *groups), rows, left=("", "synthetic (real)"))
    where = [f"{found.n_measured:,} of {found.n_synthetic:,} synthetic rows looked at, k {found.k}"]
    if found.held_out is None:
        where.append(f"not measured against held-out rows: {found.reason}")
    else:
        skipped = found.held_out.n_skipped
        where.append(
            f"held out: {found.held_out.n_classes} large classes cut to small size"
            + (f", {skipped} skipped for too few rows" if skipped else "")
        )
    note("; ".join(where))


def _beside(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def acceptance(rates: AcceptanceRates) -> None:
    """Print how often a judge accepted synthetic rows."""
    groups = rates.to_json()["groups"]
    columns = ("", "rows looked at", "accepted at once %", "accepted %", "kept although rejected")
    rows = [
        (name, g["n_rows"], percent(g["accepted_first"]), percent(g["accepted"]), g["kept_rejected"])
        for name, g in groups.items()
    ]
    table(columns, rows, left=("",))


def estimate(found: CostEstimate) -> None:
    """Print what every step will take."""
    size_, rates = found.size, found.rates
    rows = [
        (
            step.name,
            "" if step.seconds is None else span(*step.seconds),
            "" if step.memory_bytes is None else size(step.memory_bytes),
            size(step.disk_bytes) if step.disk_bytes else "",
            step.note,
        )
        for step in found.steps
    ]
    made = f" + {size_.n_synthetic:,} synthetic" if size_.n_synthetic else ""
    heads = f", {size_.n_heads} heads" if size_.n_heads > 1 else ""
    line(f"{size_.n_rows:,} rows{made} x {size_.n_features:,}, {size_.n_classes:,} classes{heads}")
    table(("step", "time", "memory", "disk", ""), rows, left=("step", ""))
    note(
        f"{rates.product_flops / 1e9:,.0f} GFLOP/s on {size_.device} ({size_.precision}), "
        f"{size(rates.converted_bytes)}/s of rows read, {size(found.memory_bytes)} of memory"
    )
    for text in found.advice:
        note(f"- {text}")


def span(low: float, high: float) -> str:
    """Return "3 to 8 s", in the unit of the larger."""
    for seconds, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if high >= seconds:
            return f"{_short(low / seconds)} to {_short(high / seconds)} {unit}"
    return "under 1 s"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def train_summary(outcome: TrainOutcome, out: Path) -> None:
    """Print what a training did."""
    settings = outcome.model.record["settings"]
    passes = (
        ", ".join(filter(None, (f"{outcome.n_passes} passes", _STOPPED[outcome.stopped])))
        if outcome.n_passes
        else "closed form"
    )
    if outcome.trials:
        _grid_table(outcome.trials)
    items = [
        ("model", str(out)),
        ("rows", f"{outcome.n_real:,} real + {outcome.targets.sum():,} synthetic"),
        ("settings", _train_settings(settings)),
        ("time", f"{outcome.seconds:.2f} s, {passes}"),
    ]
    if outcome.holdout is not None:
        n_rows = settings["holdout_rows"]["n_rows"]
        where = f"pass {outcome.kept_pass} of {outcome.n_passes}"
        found = f"{percent(outcome.holdout.balanced)} balanced, {percent(outcome.holdout.accuracy)} overall"
        items.append(("holdout", f"{found}, of {n_rows:,} rows, at {where}"))
    if outcome.kept_pass:
        kept = outcome.history[outcome.kept_pass - 1]
        gap = "" if kept["gap"] is None else f", estimated {kept['gap']:.2g} above the least"
        items.append(("objective", f"{kept['value']:.4f} (loss {kept['loss']:.4f}){gap}"))
        items.append(("speed", _speed(outcome)))
    if again := outcome.refit:
        end = _STOPPED[again["stopped"]]
        items.append(("refit", f"on all {again['n_real']:,} rows: {again['n_passes']} passes more, {end}"))
    if workers := settings.get("workers"):
        items.append(("workers", _workers(workers)))
    pairs(items)
    note(f"next: ltstore evaluate {out} --store {outcome.model.record['made_from']['store']} --split test")


def ensemble_summary(result: EnsembleResult, out: Path) -> None:
    """Print how two models were mixed, and what each share gave on the held-out rows."""
    first, second = result.names
    items = [
        ("model", str(out)),
        ("mixture", f"{1 - result.share:.3g} {first} + {result.share:.3g} {second}"),
    ]
    if result.trials:
        found = {trial.share: percent(trial.balanced) for trial in result.trials}
        items += [
            ("chosen on", f"{result.n_holdout:,} training rows that members were trained without"),
            (
                "balanced there",
                f"{found[0.0]} {first}, {found[1.0]} {second}, {found[result.share]} the mixture",
            ),
        ]
    pairs([*items, ("time", f"{result.seconds:.2f} s")])
    store = result.model.record["made_from"].get("store", "STORE")
    note(f"next: ltstore evaluate {out} --store {store} --split test")


def _speed(outcome: TrainOutcome) -> str:
    words = [f"{outcome.rows_per_second:,.0f} rows/s"]
    if outcome.share_of_peak == outcome.share_of_peak:
        words.append(f"{outcome.share_of_peak:.0%} of the {outcome.peak / 1e9:,.1f} GFLOP/s of a bare product")
    return ", ".join([*words, f"{outcome.data_share:.0%} of the time waiting for rows"])


def _grid_table(trials: Sequence[Mapping[str, Any]]) -> None:
    """The heads of a grid; the chosen one is marked."""
    figures = {"holdout_balanced", "holdout_accuracy", "n_passes", "kept_pass", "stopped", "chosen"}
    axes = [key for key in trials[0] if key not in figures]
    rows = [
        (
            "->" if trial["chosen"] else "",
            *[_cell(trial[key]) for key in axes],
            percent(trial["holdout_balanced"]),
            percent(trial["holdout_accuracy"]),
            trial["n_passes"],
            _STOPPED[trial["stopped"]],
        )
        for trial in trials
    ]
    table(("", *axes, "holdout balanced", "overall", "passes", "end"), rows)


def _train_settings(settings: Mapping[str, Any]) -> str:
    """The settings a reader looks for; all of them are in model.json."""
    words = [f"head {settings['head']}"]
    for key in (
        "loss",
        "tau",
        "smoothing",
        "class_weights",
        "beta",
        "margin",
        "scale",
        "implicit",
        "penalty",
        "l2",
        "init",
        "solver",
        "keep",
        "device",
        "precision",
        "shrinkage",
        "mean_shrinkage",
        "posthoc_tau",
        "sampler",
        "auto_name",
        "synthetic",
        "donors_by",
    ):
        value = settings.get(key)
        if value not in (None, "none", 0.0, "zero", "lbfgs", "last", "cpu", "float32"):
            words.append(f"{key.replace('_', ' ')} {_cell(value)}")
    return ", ".join(words)


def evaluations(result: EvaluateResult) -> None:
    """Print models side by side, what they gain over the baseline, and seeds taken together; the best are bold."""
    rows, values = [], {name: [-1.0] * len(result.models) for name in _MEASURES}
    for place, one in enumerate(result.models):
        e = one.evaluation
        cells: list[Any] = [one.name]
        for name in _MEASURES:
            estimate: Estimate | None = getattr(e, name)
            values[name][place] = -1.0 if estimate is None else estimate.value
            cells.append("n/a" if estimate is None else _with_interval(estimate))
        worst = e.worst.name if len(e.worst.name) <= _LONG_NAME else f"{e.worst.name[: _LONG_NAME - 1]}…"
        cells.append(f"{worst}: {percent(e.worst.accuracy)}")
        cells.append("n/a" if e.ece is None else percent(e.ece.value))
        rows.append([*cells, _cost(one.cost)])
    best = {name: column.index(max(column)) for name, column in values.items()}
    columns = ("model", *_MEASURES, "worst class", "ECE", "cost")
    table(columns, rows, left=("model",), best=best)
    note("accuracy in %, ± half of its 95 % interval over test rows; ECE: calibration error, %")
    note(f"many: over 100 training rows, few: under 20 (of {result.groups_by})")
    note("cost: seconds of training and search, passes over the rows, trials of a search")
    if len(result.models) > 1:
        _gains(result)
    if result.seeds:
        _over_seeds(result.seeds)
    for text in result.warnings:
        warning(text)


_MEASURES = ("overall", "balanced", "many", "medium", "few")
_SURE = 0.05
_LONG_NAME = 20


def _gains(result: EvaluateResult) -> None:
    """Print differences from the baseline, marked where significant, and the share of the gap to the ceiling."""
    baseline = result.models[result.baseline].name
    ceiling = None if result.ceiling is None else result.models[result.ceiling].name
    rows = []
    for one in result.models:
        if one.name == baseline:
            continue
        balanced = one.differences["balanced"]
        cells = [one.name, *(_gain(one.differences[name]) for name in _MEASURES)]
        cells.append("n/a" if balanced is None else _p_value(balanced, result.n_bootstrap))
        if ceiling is not None:
            cells.append("ceiling" if one.name == ceiling else _share(one.gap_closed["balanced"]))
        rows.append(cells)
    columns = ("model", *_MEASURES, "p balanced", *(["gap closed %"] if ceiling else []))
    table(columns, rows, title=f"gain over {baseline}", left=("model",))
    n = len(rows)
    corrected = f", Holm's correction for {n} models in each column" if n > 1 else ""
    note(f"* p < {_SURE}: paired bootstrap of {result.n_bootstrap:,} resamples{corrected}")
    if ceiling is not None:
        found = result.models[result.baseline].gap_closed["balanced"]
        why = "" if found else f": n/a, {ceiling} is not surely above {baseline}"
        note(f"gap closed: share of the gain of {ceiling} in balanced accuracy, with its 95 % interval{why}")


def _over_seeds(groups: Sequence[SeedGroup]) -> None:
    """Print mean, interval and standard deviation of models that differ by their seed."""
    rows = []
    for group in groups:
        cells: list[Any] = [group.name, len(group.seeds)]
        for name in _MEASURES:
            spread = group.accuracy[name]
            cells.append(
                "n/a" if spread is None else f"{_with_interval(spread.mean)} ({100 * spread.deviation:.2f})"
            )
        rows.append([*cells, _gain(group.differences["balanced"])])
    table(("model", "seeds", *_MEASURES, "gain balanced"), rows, title="over seeds", left=("model",))
    note(
        "mean over seeds, ± half of its 95 % interval over test rows; in brackets: standard deviation over seeds"
    )


def _gain(found: Difference | None) -> str:
    if found is None:
        return "n/a"
    mark = "*" if found.p_adjusted < _SURE else " "
    return f"{100 * found.value:+.1f} ±{50 * (found.high - found.low):.1f}{mark}"


def _p_value(found: Difference, n_bootstrap: int) -> str:
    """Return "0.032"; "≤ 0.010" where resamples could not have shown less."""
    least = found.p_value <= 2 / (n_bootstrap + 1)
    return f"{'≤ ' if least else ''}{found.p_adjusted:.3f}"


def _share(found: Estimate | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "n/a"
    return f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _cost(cost: Cost) -> str:
    """Return "5.3 s, 18 passes"."""
    words = [
        "n/a"
        if cost.seconds is None
        else f"{cost.seconds:.2g} s"
        if cost.seconds < 10
        else f"{cost.seconds:,.0f} s"
    ]
    words += [f"{cost.n_passes} passes"] if cost.n_passes else []
    words += [f"{cost.n_trials} trials"] if cost.n_trials else []
    return ", ".join(words)


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    return f"{100 * estimate.value:.1f} ±{50 * (estimate.high - estimate.low):.1f}"


def prediction_writer(style: str) -> Callable[[Prediction], None]:
    """Return what prints one prediction, at once: as "csv" lines, a "json" line or "text".

    CSV and JSON are UTF-8 whatever the terminal has, and in each style what cannot be encoded is written as \\uNNNN.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        encoding = sys.stdout.encoding if style == "text" else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace", line_buffering=True)
    if style == "json":
        return lambda answer: print(_json(answer.to_json()))
    if style == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("key", "rank", "class", "probability", "error"))

        def write(answer: Prediction) -> None:
            if answer.error is not None:
                writer.writerow((plain(answer.key), "", "", "", plain(answer.error)))
            for rank, (name, value) in enumerate(zip(answer.classes, answer.probabilities, strict=True), 1):
                writer.writerow((plain(answer.key), rank, plain(name), f"{value:.6f}", ""))

        return write

    def text(answer: Prediction) -> None:
        found = "  ".join(
            f"{name} {100 * value:.1f}%"
            for name, value in zip(answer.classes, answer.probabilities, strict=True)
        )
        line(f"{answer.key}  {found if answer.error is None else 'error: ' + answer.error}")

    return text


def quickstart_summary(result: QuickstartResult) -> None:
    """Print the comparison and what to try next."""
    evaluations(result.evaluation)
    line(f"done in {result.seconds:.1f} s: {result.n_train:,} training rows, {result.n_test:,} test rows")
    line(f"report: {result.report}")
    line()
    line("try next:")
    store, subset = result.store, result.subset
    for command in (
        f"ltstore info {store}",
        f"ltstore query {store} --subset {subset} --row {result.example_row} --among tail -k 5",
        f"ltstore donors {store} --subset {subset}",
        "ltstore ingest YOUR/IMAGES yours.zarr --encoder open_clip:ViT-B-32/laion2b_s34b_b79k",
        "ltstore train yours.zarr --sampler neighbor-gauss --out models/first",
    ):
        line(f"  {command}")


def reproduction(result: Reproduction) -> None:
    """Print what the table is about, the heads over their seeds, and where it all lies."""
    pairs(list(result.facts.items()))
    rows = []
    for one in result.table:
        cells: list[Any] = [one.head, len(one.seeds)]
        for name in _MEASURES:
            estimate, deviation = one.accuracy[name], one.deviation[name]
            spread = "" if deviation is None else f" ({100 * deviation:.2f})"
            cells.append("n/a" if estimate is None else f"{_with_interval(estimate)}{spread}")
        reference = all(found is None for found in one.over_reference.values())
        cells += ["" if reference else _gain(one.over_reference[name]) for name in ("overall", "few")]
        rows.append([*cells, _share(one.gap_closed), f"{one.seconds:.0f} s"])
    columns = ("head", "seeds", *_MEASURES, "gain", "gain few", "gap closed %", "train")
    table(columns, rows, left=("head",))
    note("accuracy in %, mean over seeds, ± half of its 95 % interval over test rows, (deviation over seeds)")
    note("gain over la in points, paired; * p < 0.05 after Holm's correction over the heads")
    for text in result.deviations:
        warning(f"not as published: {text}")
    line(f"results: {result.directory / 'results.md'}")


def import_summary(report: ImportReport) -> None:
    """Print what an import found and wrote."""
    kept = report.n_rows - report.n_written
    encoder = report.encoder
    norm = ", unit norm" if encoder["normalized"] else ""
    items: list[tuple[str, Any]] = [
        ("store", f"{report.store}, split {report.split}"),
        (
            "source",
            f"{report.source}: {report.format} {report.array}".rstrip() + f", {report.n_parts:,} part(s)",
        ),
        ("encoder", f"import:{encoder['model']} {encoder['weights']}".rstrip() + norm),
        (
            "rows",
            f"{report.n_rows:,}"
            + (f" ({kept:,} were there already)" if kept else "")
            + _after(report.first_row),
        ),
        ("embeddings", f"{report.n_features} features, {report.dtype} ({report.dtype_reason})"),
        ("labels", f"{report.n_labelled:,} from {report.labels_from}" if report.labels_from else "none"),
        ("classes", report.n_classes),
        ("keys", report.keys_from or "none found: FILE#ROW"),
        ("failed", _failures(report.failures)),
    ]
    if report.ignored:
        items.append(("not taken", ", ".join(report.ignored)))
    if report.engine:
        items.append(("workers", _workers(report.engine)))
    items.append(("time", f"{report.seconds:.1f} s, {size(report.bytes_per_second)}/s"))
    pairs(items)
    if report.n_failed:
        warning(f"{report.n_failed:,} rows have no embedding; they are kept with the reason (`ltstore info`)")


def export_summary(report: ExportReport) -> None:
    """Print what an export wrote."""
    rows = f"{report.n_rows:,}" + (f" ({report.n_skipped:,} failed rows left out)" if report.n_skipped else "")
    shown = report.files[:6] + ([f"and {len(report.files) - 6:,} more"] if len(report.files) > 6 else [])
    pairs(
        [
            ("out", f"{report.out}: {report.format}, {report.n_parts:,} part(s)"),
            ("files", ", ".join(shown)),
            ("rows", rows),
            ("embeddings", f"{report.n_features} features, {report.dtype}"),
            ("time", f"{report.seconds:.1f} s, {size(report.bytes_per_second)}/s"),
        ]
    )


def model_export_summary(report: ModelExport) -> None:
    """Print what file a model became, and what it takes."""
    what = "uint8" if report.takes == "pixels" else "float32"
    norm = {
        (True, False): ", normalised in the file",
        (True, True): ", to be scaled to unit norm first",
    }.get((report.normalize, report.format == "safetensors"), "")
    items: list[tuple[str, Any]] = [
        ("out", f"{report.out}: {report.format}, {size(report.n_bytes)}"),
        ("takes", f"{report.takes}, {what} ({', '.join(map(str, ('n', *report.shape)))}){norm}"),
        ("gives", f"{report.n_classes:,} classes"),
    ]
    if report.difference is not None:
        items.append(("checked", f"run by onnxruntime: {report.difference:.1g} off the model's own answers"))
    pairs(items)
    if report.format == "sklearn":
        warning(
            f"{report.out} is a pickle: whoever loads one runs what is in it, so load none that you did not make or "
            "do not trust, and with the same scikit-learn; ltstore reads none"
        )
