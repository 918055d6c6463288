"""ltstore donors: what each tail class may borrow from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import Json, Split, StorePath, Subset


def donors(
    store: StorePath,
    split: Split = "train",
    subset: Subset = None,
    by: Annotated[
        str, typer.Option(help="means (of classes) or index (votes of the nearest rows, see `ltstore index`).")
    ] = "means",
    k: Annotated[int, typer.Option("-k", min=1, help="Donors of each class.")] = 5,
    limit: Annotated[int, typer.Option(min=0, help="Show only the N smallest classes; 0 for all.")] = 30,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the classes shown: a .svg, .png or .pdf file.")
    ] = None,
    json: Json = False,
) -> None:
    """Show each tail class's nearest head classes and how much they lend to its synthetic rows.

    Example: `ltstore donors birds.zarr --subset lt100`
    """
    from ltstore.report import plot_donors
    from ltstore.workflow import store_donors
    from ltstore.workflow.neighborhood import donor_records

    selection, found = store_donors(store, split=split, subset=subset, by=by, k=k)
    records = donor_records(selection, found)
    if plot is not None:
        plot_donors(plot, records[: limit or None])
    if json:
        _render.json_out({"found_by": by, "classes": records})
    else:
        _render.donors(records, by, limit)
        if plot is not None:
            _render.note(f"drawn in {plot}")
