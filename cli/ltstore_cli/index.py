"""ltstore index: build a FAISS index."""

from __future__ import annotations

from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import Device, Json, Split, StorePath, Subset


def index(
    store: StorePath,
    split: Split = "train",
    subset: Subset = None,
    kind: Annotated[str, typer.Option(help="auto or flat (exact).")] = "auto",
    metric: Annotated[str, typer.Option(help="cosine, inner_product or l2.")] = "cosine",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Build the nearest-neighbour index of a split or subset.

    Example: `ltstore index birds.zarr --split train`
    """
    from ltstore.workflow import build_store_index, select

    with _render.progress("index", select(store, split, subset).rows.n_samples) as progress:
        result = build_store_index(
            store, split=split, subset=subset, kind=kind, metric=metric, device=device, progress=progress
        )
    if json:
        _render.json_out(result.to_json())
        return
    _render.pairs(
        [
            ("index", result.path),
            ("kind", f"{result.kind} ({result.reason})"),
            ("metric", result.metric),
            ("device", result.device),
            ("rows", f"{result.n_rows:,} x {result.n_features}"),
            ("size", _render.size(result.n_bytes)),
            ("seconds", f"{result.seconds:.2f}"),
        ]
    )
