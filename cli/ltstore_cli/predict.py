"""ltstore predict: labels for new images, or for stored rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ltstore_cli import _render
from ltstore_cli._completion import splits
from ltstore_cli._options import (
    BatchSize,
    EncoderConfig,
    EncoderDevice,
    EncoderOptions,
    LabelColumn,
    PathColumn,
    Root,
    SourceFormat,
    Subset,
    Workers,
    number_or_auto,
    parse_encoder_options,
)

if TYPE_CHECKING:
    from ltstore.types import ImageSource
    from ltstore.workflow import Prediction

STDIN = "-"


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model directory.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="An image, a folder of images of any depth, or what ingest takes: tars, Parquet files, a manifest, "
            "a list file, a CIFAR archive, `digits`; or `-`: paths of images from standard input, one a line.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Label the rows of this store in place of images: no encoder is run.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of a source that has splits, or of the store; default test.",
            show_default=False,
            autocompletion=splits,
        ),
    ] = None,
    subset: Subset = None,
    source_format: SourceFormat = "auto",
    root: Root = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    null: Annotated[
        bool,
        typer.Option("--null", "-0", help="With `-`: paths end with a NUL, as `find -print0` writes them."),
    ] = False,
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
    """Label images: an image file, a folder of any depth, any source that ingest takes; or the rows of a store.

    With `-` for SOURCE, paths are read from standard input, and each is answered when it comes, in order.
    An image that cannot be read gets a line with the reason; if there was one, the exit code is 1.

    Example: `ltstore predict models/ng photos/new --top 3 --csv > labels.csv`
    """
    from ltstore.linear import load_model
    from ltstore.sources import ImagesSource, iter_paths, open_source
    from ltstore.workflow import predict as predict_images
    from ltstore.workflow import predict_arriving, predict_stored
    from ltstore.workflow.encoders import reopen_encoder

    if csv and json:
        raise typer.BadParameter("choose --csv or --json", param_hint="--csv")
    if (source is None) == (store is None):
        raise typer.BadParameter("give images, or rows by --store", param_hint="SOURCE")
    arriving = source == STDIN
    of_files = source_format != "auto" or bool(root or path_column or label_column)
    for flag, given, wanted in (
        ("--subset", subset, store is not None),
        ("--null", null, arriving),
        ("--split", split, not arriving),
        ("--format, --root and columns", of_files, store is None and not arriving),
        ("--encoder", encoder or encoder_config or encoder_option, store is None),
    ):
        if given and not wanted:
            raise typer.BadParameter(f"not with {'--store' if store else source}", param_hint=flag)
    batch, n_workers = number_or_auto(batch_size, "--batch-size"), number_or_auto(workers, "--workers")
    options = parse_encoder_options(encoder_option)
    head = load_model(model)
    images: ImageSource | None = None
    if store is None and not arriving:
        with _render.progress("open", None, "files") as progress:
            images = open_source(
                str(source),
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
    with _render.progress("predict", images.n_samples if images else None, "images") as progress:
        answers: Iterator[Prediction]
        if store is not None:
            answers = predict_stored(
                head, store, split=split or "test", subset=subset, top=top, progress=progress
            )
        else:
            used = reopen_encoder(
                head.encoder,
                encoder or head.encoder_spec,
                device=device,
                options=options,
                config=encoder_config,
            )
            how: dict[str, Any] = {
                "top": top,
                "batch_size": batch,
                "n_workers": n_workers,
                "progress": progress,
            }
            if images is None:
                paths = iter_paths(FileIO(sys.stdin.fileno(), closefd=False), b"\0" if null else b"\n")
                answers = predict_arriving(head, paths, used, **how)
            else:
                answers = predict_images(head, images, used, **how)
        n_answers = n_failed = 0
        write = _render.prediction_writer("csv" if csv else "json" if json else "text")
        for answer in answers:
            n_answers += 1
            n_failed += answer.error is not None
            write(answer)
    if n_failed:
        what = "images could not be read" if store is None else "rows have no embedding"
        _render.error(f"{n_failed:,} of {n_answers:,} {what}")
        raise typer.Exit(1)
