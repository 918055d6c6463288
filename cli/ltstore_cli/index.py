"""ltstore index: build a FAISS index, or bring it up to date."""

from __future__ import annotations

from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import INDEX_KINDS, among
from ltstore_cli._options import Device, Json, Split, StorePath, Subset, parse_bytes


def index(
    store: StorePath,
    split: Split = "train",
    subset: Subset = None,
    kind: Annotated[
        str,
        typer.Option(
            help="auto, flat (exact), hnsw (graph), ivf (lists), sq8 (a byte a feature) or ivfpq (a bit).",
            autocompletion=among(*INDEX_KINDS),
        ),
    ] = "auto",
    metric: Annotated[str, typer.Option(help="cosine, inner_product or l2.")] = "cosine",
    recall: Annotated[
        float,
        typer.Option(help="Share of the true neighbours to find, over all queries and over those of the tail."),
    ] = 0.95,
    memory: Annotated[
        str | None, typer.Option(help="What the index may take, e.g. 2GB. Default: half of the machine's.")
    ] = None,
    graph: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Also write the K nearest rows of every row.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build anew even if a good index is there.")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Build the nearest-neighbour index of a split or subset, or bring it up to date.

    An index that is there is kept, rows appended since are added, and a damaged or foreign one is built again from the
    store. Search is tuned on rows held out while it is built, and what it finds of their neighbours is reported: `auto`
    takes no kind that finds less than --recall.

    Example: `ltstore index birds.zarr --recall 0.99`
    """
    from ltstore.workflow import build_store_index, select

    n_steps = select(store, split, subset).rows.n_samples * (1 if graph is None else 2)
    with _render.progress("index", n_steps) as progress:
        result = build_store_index(
            store,
            split=split,
            subset=subset,
            kind=kind,
            metric=metric,
            device=device,
            recall=recall,
            memory_bytes=parse_bytes(memory, "--memory"),
            graph=graph,
            force=force,
            progress=progress,
        )
    if json:
        _render.json_out(result.to_json())
    else:
        _render.index(result)
