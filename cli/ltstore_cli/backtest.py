"""ltstore backtest: which sampler and settings, chosen on classes that are large enough to hide rows of."""

from __future__ import annotations

from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import Json, Seed, Split, StorePath, Subset


def backtest(
    store: StorePath,
    split: Split = "train",
    subset: Subset = None,
    samplers: Annotated[
        str | None, typer.Option(help="Only these samplers, e.g. neighbor-gauss,vmf; default all.")
    ] = None,
    trials: Annotated[
        int, typer.Option(min=2, help="Trials, in pairs; twice as many make intervals 0.7 times as wide.")
    ] = 4,
    rows_per_class: Annotated[
        int | None, typer.Option(min=10, help="Most rows of a class in a trial; default 200.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Show only the N best; 0 for all.")] = 15,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Run again although there is a card.")] = False,
    json: Json = False,
) -> None:
    """Choose how to treat the tail, without the test split: `train --sampler auto` then uses it.

    Large classes are cut down to the sizes that small ones have, heads with and without synthetic rows are trained,
    and judged on the rows that were hidden.

    Example: `ltstore backtest birds.zarr --subset lt100`
    """
    from ltstore.workflow import backtest as run

    with _render.progress("backtest", None, "heads") as progress:
        outcome = run(
            store,
            split=split,
            subset=subset,
            samplers=None
            if samplers is None
            else [name.strip() for name in samplers.split(",") if name.strip()],
            n_trials=trials,
            rows_per_class=rows_per_class,
            seed=seed,
            force=force,
            progress=progress,
        )
    if json:
        _render.json_out(outcome.to_json())
    else:
        _render.backtest_card(outcome, limit)
