"""Heads: trained, mixed, exported, and what they predict."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltstore_cli._render.terminal import (
    as_json,
    cell,
    crew,
    line,
    note,
    pairs,
    percent,
    plain,
    size,
    table,
    warning,
)

if TYPE_CHECKING:
    from ltstore.workflow import EnsembleResult, ModelExport, Prediction, TrainOutcome

_STOPPED = {
    "tolerance": "converged",
    "max_passes": "stopped at the limit of passes",
    "rounding": "stopped where float32 gives no more",
    "epochs": "all epochs made",
    "closed form": "",
}


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
        items.append(("workers", crew(workers)))
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
            ("calibrated", f"logits times {result.calibration:.3g}, by the same rows"),
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
            *[cell(trial[key]) for key in axes],
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
            words.append(f"{key.replace('_', ' ')} {cell(value)}")
    return ", ".join(words)


def prediction_writer(style: str) -> Callable[[Prediction], None]:
    """Return what prints one prediction, at once: as "csv" lines, a "json" line or "text".

    CSV and JSON are UTF-8 whatever the terminal has, and in each style what cannot be encoded is written as \\uNNNN.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        encoding = sys.stdout.encoding if style == "text" else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace", line_buffering=True)
    if style == "json":
        return lambda answer: print(as_json(answer.to_json()))
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
