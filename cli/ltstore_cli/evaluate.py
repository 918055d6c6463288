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
        Path | None,
        typer.Option(help="One of the models, that the others are compared with; default: the first."),
    ] = None,
    ceiling: Annotated[
        Path | None,
        typer.Option(
            help="One of the models, made of all or balanced rows: say what share of its gain the others have."
        ),
    ] = None,
    per_class: Annotated[
        Path | None, typer.Option(help="Write a CSV file with the accuracy of every class to this file.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compare models on a split: overall, balanced, many / medium / few, worst class, with 95 % intervals.

    Gains over the baseline come with significance, and models that differ by their seed alone with mean and standard
    deviation (docs/evaluation.md). The report is about the last model given, compared with the baseline.

    Examples: `ltstore evaluate models/* --store birds.zarr --report report.html`;
    `ltstore evaluate models/* --store birds.zarr --ceiling models/all-rows --per-class classes.csv`
    """
    from ltstore.store import open_store
    from ltstore.workflow import evaluate as evaluate_models
    from ltstore.workflow import write_evaluation_report

    with _render.progress("evaluate", None) as progress:
        result = evaluate_models(
            models,
            store,
            split=split,
            subset=subset,
            baseline=baseline,
            ceiling=ceiling,
            per_class=per_class,
            seed=seed,
            progress=progress,
        )
    if json:
        _render.json_out(result.to_json())
    else:
        _render.evaluations(result)
    if per_class is not None:
        _render.note(f"classes: {per_class}")
    if report is not None:
        write_evaluation_report(report, result, open_store(store))
        _render.note(f"report: {report}")
