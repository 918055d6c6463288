"""ltstore evaluate: accuracy of models, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import splits
from ltstore_cli._options import Json, Seed, Subset


def evaluate(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Model directories.", show_default=False)
    ],
    store: Annotated[str, typer.Option(help="The store with the rows to be judged on.")],
    split: Annotated[str, typer.Option(help="Split of the store.", autocompletion=splits)] = "test",
    subset: Subset = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Model that the report compares with; default: the first.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compare models on a split: overall, balanced, many / medium / few, worst class, with 95 % intervals.

    The report is about the last model given, compared with the baseline.

    Example: `ltstore evaluate models/* --store birds.zarr --report report.html`
    """
    from ltstore.store import open_store
    from ltstore.workflow import evaluate as evaluate_models
    from ltstore.workflow import write_evaluation_report

    with _render.progress("evaluate", None) as progress:
        result = evaluate_models(
            models, store, split=split, subset=subset, baseline=baseline, seed=seed, progress=progress
        )
    if json:
        _render.json_out(result.to_json())
    else:
        _render.evaluations(result)
    if report is not None:
        write_evaluation_report(report, result, open_store(store))
        _render.note(f"report: {report}")
