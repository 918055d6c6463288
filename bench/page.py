"""docs/benchmarks.md, written from the results alone."""

from __future__ import annotations

from collections.abc import Sequence

from bench.case import Case
from bench.run import Record, loses, met
from bench.show import number, seconds

_HEAD = """\
# Benchmarks

Written by `python -m bench page` from `bench/results`; run them with `ltstore bench` or `python -m bench run`.

Every figure is a ratio of candidates that take turns in one run, the median of the rounds with the 20th and 80th
percentile in brackets. A candidate is checked before it is timed, and refused if its answer is wrong. **Speed** ratios
are ltstore / the candidate, higher is better; **cost** ratios are seconds of ltstore / seconds of the candidate, lower
is better; **memory** ratios are peak bytes of ltstore / those of the candidate, lower is better; **estimate** ratios
are what a run took / what was said of it at most, at most 1. The machines are
shared and noisy: the times beside the ratios say which order of magnitude was measured and
nothing more. CPU seconds are those of all threads of a process pinned to one core: other people's work moves them less
than wall seconds. Peak MB is how far one run raised resident memory, mapped pages of files included. Figures
that fall short of their aim, and peers that are faster, stand here as they were measured.
"""

_PLOT = "![Every ratio with an aim, as times the aim](benchmarks.svg)\n\n"


def page(cases: Sequence[Case], records: Sequence[Record]) -> str:
    """Return the page: a summary of what has an aim, then every case with its candidates.

    Parameters
    ----------
    cases : sequence of Case
        For definitions and notes; a case without records is named as not measured.
    records : sequence of dict
        Of full size; others are left out.
    """
    full = [record for record in records if record["size"] == "full"]
    parts = [_HEAD, "\n## Summary\n\n", _PLOT, _summary(full), _faster(full), _machines(full)]
    parts += [_section(case, [each for each in full if each["case"] == case.name]) for case in cases]
    return "".join(parts)


def _summary(records: Sequence[Record]) -> str:
    rows = ["| case | variant | against | ratio | aim | stretch | |", "|---|---|---|---|---|---|---|"]
    for record in records:
        reached = met(record)
        if reached is not None:
            stretch = "" if record["stretch"] is None else number(record["stretch"])
            rows.append(
                f"| {record['case']} | {record['variant']} | {record['candidate']} | {_ratio(record)} "
                f"| {_bound(record)} {number(record['aim'])} | {stretch} | {'met' if reached else '**missed**'} |"
            )
    return "\n".join(rows) + "\n"


def _faster(records: Sequence[Record]) -> str:
    found = [
        f"- {record['case']}, {record['variant']}: {record['candidate']}, {_ratio(record)}"
        for record in records
        if loses(record)
    ]
    if not found:
        return ""
    return "\nFaster than ltstore here (bare baselines and peers alike):\n\n" + "\n".join(found) + "\n"


def _machines(records: Sequence[Record]) -> str:
    lines: list[str] = []
    for record in records:
        m = record["machine"]
        memory = f", {m['memory_bytes'] / 2**30:.0f} GiB" if m["memory_bytes"] else ""
        gpu = f", {m['gpu']}" if m["gpu"] else ", no GPU"
        flags = f" ({', '.join(m['flags'])})" if m["flags"] else ""
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        line = f"- {record['date']}: {m['cpu']}, {m['cores']} cores{flags}{memory}{gpu}; {versions}"
        if line not in lines:
            lines.append(line)
    return "\n## Machines\n\n" + "\n".join(lines) + "\n" if lines else ""


def _section(case: Case, records: Sequence[Record]) -> str:
    text = [f"\n## {case.name}\n\n{case.definition}.\n"]
    if case.note:
        text.append(f"\n{case.note}\n")
    if not records:
        text.append("\nNot measured yet.\n")
    variants = dict.fromkeys(record["variant"] for record in records)
    text += [_variant([each for each in records if each["variant"] == variant]) for variant in variants]
    return "".join(text)


def _variant(records: Sequence[Record]) -> str:
    first = records[0]
    what = ", ".join(f"{key} {_plain(value)}" for key, value in first["settings"].items() if value is not None)
    clock = f"{first.get('clock', 'wall')} seconds"
    lines = [
        f"\n**{first['variant']}** ({first['kind']}, {clock}; {what}; {first['date']}, commit `{first['commit']}`, "
        f"load {_plain(first['load'])})\n",
        "| candidate | seconds | peak MB | ratio | aim |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        if why := record.get("skipped"):
            lines.append(f"| {record['candidate']} | skipped: {why} | | | |")
        elif why := record.get("refused"):
            lines.append(f"| {record['candidate']} | refused: {why} | | | |")
        else:
            aim = "" if record["aim"] is None else f"{_bound(record)} {number(record['aim'])}"
            peak = "" if record["peak_bytes"] is None else f"{record['peak_bytes'] / 1e6:,.0f}"
            ratio = "" if record["ratio"] is None else _ratio(record)
            lines.append(
                f"| {record['candidate']} | {seconds(record['seconds']['p50'])} | {peak} | {ratio} | {aim} |"
            )
    return "\n".join(lines) + "\n"


def _ratio(record: Record) -> str:
    ratio = record["ratio"]
    return f"{number(ratio['p50'])} ({number(ratio['p20'])} to {number(ratio['p80'])})"


def _bound(record: Record) -> str:
    return "≥" if record["kind"] == "speed" else "≤"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_plain(each)}" for key, each in value.items()) + ")"
    return str(value)
