"""The only place that prints: one module a subject, over `terminal` (lines, tables, JSON) and `bars` (progress)."""

from ltstore_cli._render.accuracy import evaluations, quickstart_summary, reproduction
from ltstore_cli._render.bars import ingesting, progress, training
from ltstore_cli._render.budget import estimate
from ltstore_cli._render.heads import ensemble_summary, model_export_summary, prediction_writer, train_summary
from ltstore_cli._render.search import donors, index, neighbors
from ltstore_cli._render.stores import (
    export_summary,
    import_summary,
    ingest_summary,
    left_out,
    limits,
    store_facts,
    verify_summary,
)
from ltstore_cli._render.synthetic import acceptance, backtest_card, quality
from ltstore_cli._render.terminal import (
    error,
    json_out,
    line,
    note,
    pairs,
    records,
    settings,
    show_log,
    table,
    warning,
)

__all__ = [
    "acceptance",
    "backtest_card",
    "donors",
    "ensemble_summary",
    "error",
    "estimate",
    "evaluations",
    "export_summary",
    "import_summary",
    "index",
    "ingest_summary",
    "ingesting",
    "json_out",
    "left_out",
    "limits",
    "line",
    "model_export_summary",
    "neighbors",
    "note",
    "pairs",
    "prediction_writer",
    "progress",
    "quality",
    "quickstart_summary",
    "records",
    "reproduction",
    "settings",
    "show_log",
    "store_facts",
    "table",
    "train_summary",
    "training",
    "verify_summary",
    "warning",
]
