"""Models judged on labelled rows, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ltstore_cli._render.terminal import line, note, pairs, percent, table, warning

if TYPE_CHECKING:
    from ltstore.metrics import Difference, Estimate
    from ltstore.workflow import EvaluateResult, QuickstartResult, Reproduction
    from ltstore.workflow.evaluation.cost import Cost
    from ltstore.workflow.evaluation.seeds import SeedGroup

_MEASURES = ("overall", "balanced", "many", "medium", "few")
_SURE = 0.05
_LONG_NAME = 20


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
