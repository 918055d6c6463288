"""ltstore donors: what each tail class may borrow from."""

from __future__ import annotations

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
    json: Json = False,
) -> None:
    """Show each tail class's nearest head classes and how much they lend to its synthetic rows.

    Example: `ltstore donors birds.zarr --subset lt100`
    """
    from ltstore.workflow import store_donors
    from ltstore.workflow.neighborhood import donor_records

    selection, found = store_donors(store, split=split, subset=subset, by=by, k=k)
    records = donor_records(selection, found)
    if json:
        _render.json_out({"found_by": by, "classes": records})
    else:
        _render.donors(records, by, limit)
