"""Synthetic rows: which sampler a backtest chose, and how good its rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltstore_cli._render.terminal import note, pairs, percent, table

if TYPE_CHECKING:
    from ltstore.quality import Quality
    from ltstore.sampling.acceptance import AcceptanceRates
    from ltstore.workflow import BacktestOutcome


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
