"""ltstore query: the nearest rows of an image, a row, a text or a vector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import (
    Device,
    EncoderConfig,
    EncoderOptions,
    Json,
    Split,
    StorePath,
    Subset,
    parse_encoder_options,
)


def query(
    store: StorePath,
    image: Annotated[Path | None, typer.Option(help="Image file, encoded as the store was.")] = None,
    row: Annotated[
        int | None, typer.Option(min=0, help="Row id of the split; it does not find itself.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help='Words, e.g. "a photo of a heron" (open_clip stores).')
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help=".npy file of (n, D) embeddings.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of each query.")] = 10,
    among: Annotated[
        str | None, typer.Option(help="Only many, medium, few or tail classes, or CLASS,CLASS,...")
    ] = None,
    split: Split = "train",
    subset: Subset = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder for --image and --text, if it moved since ingest.")
    ] = None,
    encoder_config: EncoderConfig = None,
    encoder_option: EncoderOptions = None,
    device: Device = "auto",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with the neighbours' images.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the nearest rows: "which tail classes lie near this image?"

    Example: `ltstore query birds.zarr --image heron.jpg --among tail -k 5`
    """
    from ltstore.workflow import query_store, select
    from ltstore.workflow.neighborhood import query_vectors, write_contact_sheet

    if sum(given is not None for given in (image, row, text, vectors)) != 1:
        raise typer.BadParameter("give exactly one of --image, --row, --text, --vectors")
    selection = select(store, split, subset)
    X, names, exclude = query_vectors(
        selection,
        image=image,
        row=row,
        text=text,
        vectors=vectors,
        encoder=encoder,
        encoder_options=parse_encoder_options(encoder_option),
        encoder_config=encoder_config,
        device=device,
    )
    answers = query_store(selection, X, k, among=among, exclude=exclude)
    if html is not None:
        without = write_contact_sheet(html, selection, names, answers)
        _render.note(f"{html}: {without} of {sum(map(len, answers))} images are not there any more")
    if json:
        _render.json_out([{"query": name, "neighbors": one} for name, one in zip(names, answers, strict=True)])
        return
    for name, one in zip(names, answers, strict=True):
        _render.neighbors(name, one)
