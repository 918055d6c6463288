"""ltstore export: a split in another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import LAYOUTS, among
from ltstore_cli._options import Json, Split, StorePath, Subset


def export(
    store: StorePath,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new file, or a new directory.", show_default=False)
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--format",
            help="npy, npz, parquet, safetensors (files), clip-retrieval or datacomp (directories).",
            show_default=False,
            autocompletion=among(*LAYOUTS),
        ),
    ],
    split: Split = "train",
    subset: Subset = None,
    skip_failed: Annotated[
        bool, typer.Option("--skip-failed", help="Leave out rows without an embedding, instead of refusing.")
    ] = False,
    array: Annotated[str | None, typer.Option(help="Name of the array, column or tensor.")] = None,
    part_rows: Annotated[int, typer.Option(min=1, help="Rows in a part of clip-retrieval and datacomp.")] = 1
    << 20,
    json: Json = False,
) -> None:
    """Write a split, or a subset of it, for other programs: the stored bits, with labels, keys and row ids.

    Example: `ltstore export birds.zarr birds.npz --split train --subset lt100 --format npz`
    """
    from ltstore.store import open_store
    from ltstore.transfer import export_embeddings

    total = open_store(store).split(split).n_rows if subset is None else None
    with _render.progress(f"export {split}", total) as progress:
        report = export_embeddings(
            store,
            out,
            split,
            format=layout,
            subset=subset,
            skip_failed=skip_failed,
            array=array,
            part_rows=part_rows,
            progress=progress,
        )
    if json:
        _render.json_out(report.to_json())
    else:
        _render.export_summary(report)
