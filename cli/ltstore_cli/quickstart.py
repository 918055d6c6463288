"""ltstore quickstart: the whole chain on images that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import Json, Seed


def quickstart(
    out: Annotated[Path, typer.Option(help="Directory for the store, the models and the report.")] = Path(
        "quickstart"
    ),
    imbalance: Annotated[float, typer.Option(min=1.0, help="Largest over smallest class of the cut.")] = 50.0,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Run the whole chain on scikit-learn's handwritten digits: no download, under a minute.

    Ingests the images, cuts a long tail, builds the index, names donors, trains a plain, a logit-adjusted, a
    synthetic-row and two closed-form heads, compares them, and writes an HTML report.

    Example: `ltstore quickstart`
    """
    from ltstore.workflow import quickstart as run_quickstart

    result = run_quickstart(out, imbalance=imbalance, seed=seed, announce=_render.note)
    if json:
        _render.json_out(result.to_json())
    else:
        _render.quickstart_summary(result)
