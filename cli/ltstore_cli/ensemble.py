"""ltstore ensemble: two models as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import Json, Seed, Split, Subset, number_or_name


def ensemble(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Model directory.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Model directory.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Model directory to write.")],
    share: Annotated[
        str,
        typer.Option(help="Of the second model's logits, 0 to 1; or auto: chosen on held-out training rows."),
    ] = "auto",
    store: Annotated[
        str | None, typer.Option(help="The store with the rows they were trained on, to choose the share.")
    ] = None,
    split: Split = "train",
    subset: Subset = None,
    holdout: Annotated[
        str,
        typer.Option(
            help="What the share is chosen on: a share of the rows of each class, a subset or a split."
        ),
    ] = "0.2",
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that is there.")] = False,
    json: Json = False,
) -> None:
    """Mix the logits of two models, e.g. a zero-shot and a trained one, into a model that is used like any other.

    To choose the share, members are trained once more without the held-out rows. No test row is read.

    Example: `ltstore ensemble models/zero-shot models/la --store birds.zarr --out models/both`
    """
    from ltstore.workflow import ensemble as mix

    result = mix(
        first,
        second,
        share=number_or_name(share),
        store=store,
        split=split,
        subset=subset,
        holdout=number_or_name(holdout),
        seed=seed,
        out=out,
        force=force,
    )
    if json:
        _render.json_out(result.to_json() | {"model": str(out)})
    else:
        _render.ensemble_summary(result, out)
