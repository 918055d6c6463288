"""ltstore ingest: images to embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ltstore_cli import _render
from ltstore_cli._completion import ENCODERS, among
from ltstore_cli._options import (
    Address,
    Append,
    BatchSize,
    EncoderConfig,
    EncoderDevice,
    EncoderOptions,
    EngineName,
    Json,
    LabelColumn,
    PathColumn,
    Root,
    Seed,
    SourceArgument,
    SourceFormat,
    Split,
    StorePath,
    Workers,
    number_or_auto,
    parse_encoder_options,
)

if TYPE_CHECKING:
    from ltstore.types import Encoder


def ingest(
    source: SourceArgument,
    store: StorePath,
    split: Split = "train",
    source_format: SourceFormat = "auto",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="pixels, open_clip:ARCH/TAG, open_clip:ARCH/CHECKPOINT, timm:ARCH/TAG or onnx:FILE. "
            "Default: the one the store was made with.",
            autocompletion=among(*ENCODERS),
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="projected, penultimate (before the projection; open_clip only), or both of one pass: with "
            "projected,penultimate the second kind goes into STORE-penultimate. Default: those of the store, or else "
            "projected."
        ),
    ] = None,
    encoder_config: EncoderConfig = None,
    encoder_option: EncoderOptions = None,
    root: Root = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class names, one per line, in the order of the labels.")
    ] = None,
    indices: Annotated[
        Path | None, typer.Option(help="Ingest only these rows of the source: .npy or text, in this order.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ingest only the first N rows.")] = None,
    order: Annotated[
        str,
        typer.Option(
            help="Of the rows: source, or shuffled by the seed (those of tars and Parquet files among a few at a time)."
        ),
    ] = "source",
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    engine: EngineName = "local",
    workers: Workers = "auto",
    address: Address = None,
    append: Append = False,
    full_decode: Annotated[
        bool,
        typer.Option(
            "--full-decode",
            help="Decode every pixel of large JPEGs and resize with Pillow. Default: as the store was made, a new one "
            "fast (embeddings differ by less than 1 % in cosine).",
        ),
    ] = False,
    device: EncoderDevice = "auto",
    dtype: Annotated[
        str, typer.Option(help="Type on disk: auto (float16, or as the split is), float16 or float32.")
    ] = "auto",
    json: Json = False,
) -> None:
    """Encode images into a store. The same command again resumes a run that was stopped.

    Images that cannot be read keep their row, with the reason; nothing shifts.

    Example: `ltstore ingest photos/train birds.zarr --encoder open_clip:ViT-B-32/laion2b_s34b_b79k`
    """
    from ltstore.encode import NativePixels, open_encoder
    from ltstore.encode import ingest as ingest_source
    from ltstore.engine import open_engine
    from ltstore.errors import ConfigError
    from ltstore.sources import open_source, read_class_names, read_indices, source_record
    from ltstore.storage import is_url
    from ltstore.store import is_store, open_store
    from ltstore.workflow.encoders import may_use_gpus, place_beside, recorded_spec, reopen_encoder

    batch, n_workers = number_or_auto(batch_size, "--batch-size"), number_or_auto(workers, "--workers")
    options = parse_encoder_options(encoder_option)
    existing = open_store(store) if is_store(store) else None
    if full_decode:
        options = {**(options or {}), "decoding": "full"}
    elif encoder is not None and existing is not None:
        options = {"decoding": existing.encoder.preprocessing.get("decoding", "full"), **(options or {})}
    class_names = read_class_names(classes) if classes else None
    if existing is not None:
        if class_names is not None and tuple(class_names) != existing.class_names:
            raise ConfigError(f"--classes {classes} differs from the classes of {store}: leave it out")
        class_names = existing.class_names
    where: dict[str, Any] = {
        "split": split,
        "format": source_format,
        "root": root,
        "path_column": path_column,
        "label_column": label_column,
        "limit": limit,
    }
    with _render.progress("open", None, "files") as progress:
        images = open_source(
            source,
            **where,
            class_names=class_names,
            indices=None if indices is None else read_indices(indices),
            cache=None if is_url(store) else f"{Path(store)}.tars",
            progress=progress,
        )
    _render.left_out(getattr(images, "n_ignored", {}))
    used: Encoder
    if encoder is not None:
        used = open_encoder(
            encoder, device=device, features=features or "projected", options=options, config=encoder_config
        )
    elif source == "digits" and (existing is None or not existing.splits):  # begun, and stopped before any row
        used = open_encoder(
            "pixels", device=device, features=features or "projected", options=options, config=encoder_config
        )
    elif existing is not None:
        used = reopen_encoder(
            existing.encoder,
            recorded_spec(existing),
            device=device,
            features=features,
            options=options,
            config=encoder_config,
        )
    else:
        raise typer.BadParameter(
            "a new store needs an encoder, e.g. open_clip:ViT-B-32/laion2b_s34b_b79k", param_hint="--encoder"
        )
    if isinstance(used, NativePixels):
        used = used.resolve(images, None if existing is None else existing.encoder)
    with (
        open_engine(engine, n_workers, address=address, use_gpus=may_use_gpus(used, engine, device)) as crew,
        _render.ingesting(split, images.n_samples, used.device if crew is None else "cpu") as (
            progress,
            on_failed,
        ),
    ):
        report = ingest_source(
            images,
            used,
            store,
            split,
            beside=[place_beside(store, kind) for kind in (features or "").split(",")[1:]],
            batch_size=batch,
            n_workers=n_workers if crew is None else "auto",
            dtype=dtype,
            class_names=class_names,
            append=append,
            order=order,
            seed=seed,
            engine=crew,
            source_record=source_record(source, **where, indices=indices),
            progress=progress,
            on_failed=on_failed,
        )
    if json:
        _render.json_out(report.to_json())
    else:
        _render.ingest_summary(report, store, split, used)
    if report.n_failed and report.n_failed == report.n_rows:
        _render.error(f"none of the {report.n_rows:,} images could be encoded: see `ltstore info {store}`")
        raise typer.Exit(1)
