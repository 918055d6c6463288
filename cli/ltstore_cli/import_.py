"""ltstore import: embeddings that exist already, into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import LAYOUTS, among
from ltstore_cli._options import Address, Append, EngineName, Json, Split, StorePath, number_or_auto


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A file, or a directory of parts.", show_default=False)
    ],
    store: StorePath,
    split: Split = "train",
    layout: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, npy, npz, parquet, clip-retrieval, datacomp or safetensors.",
            autocompletion=among("auto", *LAYOUTS),
        ),
    ] = "auto",
    array: Annotated[
        str | None, typer.Option(help="Array, column or tensor of the embeddings, e.g. l14_img.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Labels, numbers or class names: .npy, Parquet or text, one a line.")
    ] = None,
    label_array: Annotated[str | None, typer.Option(help="Array or column of the labels.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Where each row came from: .npy, Parquet or text, one a line.")
    ] = None,
    key_array: Annotated[str | None, typer.Option(help="Array or column of the keys.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class names, one per line, in the order of the labels.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="What made the embeddings, e.g. ViT-B-32.")] = None,
    weights: Annotated[str | None, typer.Option(help="Its pretrained tag.")] = None,
    normalized: Annotated[
        bool | None,
        typer.Option("--normalized/--not-normalized", help="Whether rows have unit norm already (looked at)."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Type on disk: auto (as found), float16 or float32.")] = "auto",
    append: Append = False,
    engine: EngineName = "local",
    workers: Annotated[
        str | None, typer.Option(help="Workers of --engine processes or ray, or auto (default): one a core.")
    ] = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Import embeddings that exist already, bit for bit. The same command again resumes a run that was stopped.

    Rows with NaN or infinity keep their place as failed rows; labels and keys beside the embeddings are found
    where a layout has them.

    Example: `ltstore import laion/ birds.zarr --split train --model ViT-B-32 --weights openai --normalized`
    """
    from ltstore.engine import open_engine
    from ltstore.transfer import import_embeddings

    if workers is not None and engine == "local":
        raise typer.BadParameter("needs --engine processes or ray", param_hint="--workers")
    n_workers = number_or_auto(workers or "auto", "--workers")
    with (
        open_engine(engine, n_workers, address=address) as crew,
        _render.progress(f"import {split}", None) as progress,
    ):
        report = import_embeddings(
            source,
            store,
            split,
            format=layout,
            array=array,
            labels=labels,
            keys=keys,
            label_array=label_array,
            key_array=key_array,
            class_names=classes,
            model=model,
            weights=weights,
            normalized=normalized,
            dtype=dtype,
            append=append,
            engine=crew,
            progress=progress,
        )
    if json:
        _render.json_out(report.to_json())
    else:
        _render.import_summary(report)
    if report.n_failed and report.n_failed == report.n_rows:
        _render.error(f"none of the {report.n_rows:,} rows has a finite embedding: see `ltstore info {store}`")
        raise typer.Exit(1)
