"""What the steps will take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltstore_cli._render.terminal import line, note, size, table

if TYPE_CHECKING:
    from ltstore.workflow import CostEstimate


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
