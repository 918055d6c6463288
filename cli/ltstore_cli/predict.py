"""ltstore predict: labels for new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import (
    BatchSize,
    EncoderConfig,
    EncoderDevice,
    EncoderOptions,
    LabelColumn,
    PathColumn,
    Root,
    SourceFormat,
    Workers,
    number_or_auto,
    parse_encoder_options,
)


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model directory.", show_default=False)],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An image, a folder of images of any depth, or what ingest takes: tars, Parquet files, a manifest, "
            "a list file, a CIFAR archive, `digits`.",
            show_default=False,
        ),
    ],
    split: Annotated[
        str | None, typer.Option(help="Split of a source that has splits; default test.", show_default=False)
    ] = None,
    source_format: SourceFormat = "auto",
    root: Root = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    top: Annotated[int, typer.Option(min=1, help="Classes per image.")] = 5,
    encoder: Annotated[str | None, typer.Option(help="Encoder, if it moved since ingest.")] = None,
    encoder_config: EncoderConfig = None,
    encoder_option: EncoderOptions = None,
    batch_size: BatchSize = "auto",
    workers: Workers = "auto",
    device: EncoderDevice = "auto",
    csv: Annotated[bool, typer.Option("--csv", help="One CSV line per image and class.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON line per image.")] = False,
) -> None:
    """Label images: an image file, a folder of any depth, or any source that ingest takes.

    An image that cannot be read gets a line with the reason; if there was one, the exit code is 1.

    Example: `ltstore predict models/ng photos/new --top 3 --csv > labels.csv`
    """
    from ltstore.linear import load_model
    from ltstore.sources import ImagesSource, open_source
    from ltstore.workflow import predict as predict_images
    from ltstore.workflow.encoders import reopen_encoder

    if csv and json:
        raise typer.BadParameter("choose --csv or --json", param_hint="--csv")
    batch, n_workers = number_or_auto(batch_size, "--batch-size"), number_or_auto(workers, "--workers")
    options = parse_encoder_options(encoder_option)
    head = load_model(model)
    with _render.progress("open", None, "files") as progress:
        images = open_source(
            source,
            split=split or "test",
            format=source_format,
            root=root,
            path_column=path_column,
            label_column=label_column,
            labelled=False,
            progress=progress,
        )
    if split is not None and isinstance(images, ImagesSource):
        raise typer.BadParameter("a folder of images without labels has no splits", param_hint="--split")
    used = reopen_encoder(
        head.encoder, encoder or head.encoder_spec, device=device, options=options, config=encoder_config
    )
    failed = 0
    with _render.progress("predict", images.n_samples, "images") as progress:
        write = _render.prediction_writer("csv" if csv else "json" if json else "text")
        for answer in predict_images(
            head, images, used, top=top, batch_size=batch, n_workers=n_workers, progress=progress
        ):
            failed += answer.error is not None
            write(answer)
    if failed:
        _render.error(f"{failed:,} of {images.n_samples:,} images could not be read")
        raise typer.Exit(1)
