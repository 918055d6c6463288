"""ltstore export-model: a model for programs that know nothing of ltstore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import MODEL_FORMATS, among
from ltstore_cli._options import EncoderConfig, EncoderOptions, Json, parse_encoder_options


def export_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model directory.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new file.", show_default=False)],
    layout: Annotated[
        str,
        typer.Option(
            "--format",
            help="safetensors (arrays and class names), onnx (checked by onnxruntime), or sklearn (a "
            "LogisticRegression by joblib, which is a pickle).",
            show_default=False,
            autocompletion=among(*MODEL_FORMATS),
        ),
    ],
    with_encoder: Annotated[
        bool,
        typer.Option(
            "--with-encoder", help="onnx only: put the encoder before the head, so that it takes images."
        ),
    ] = False,
    encoder: Annotated[str | None, typer.Option(help="Encoder, if it moved since ingest.")] = None,
    encoder_config: EncoderConfig = None,
    encoder_option: EncoderOptions = None,
    json: Json = False,
) -> None:
    """Write a model as one file that needs no ltstore: the head, or encoder and head.

    An ONNX file is compared with the model's own answers before it is kept.

    Example: `ltstore export-model models/ng birds.onnx --format onnx --with-encoder`
    """
    from ltstore.linear import load_model
    from ltstore.workflow import export_model as write_model
    from ltstore.workflow.encoders import reopen_encoder

    options = parse_encoder_options(encoder_option)
    if not with_encoder and (encoder or encoder_config or options):
        raise typer.BadParameter("the encoder's options are for --with-encoder", param_hint="--encoder")
    head = load_model(model)
    used = None
    if with_encoder:
        spec = encoder or head.encoder_spec
        used = reopen_encoder(head.encoder, spec, device="cpu", options=options, config=encoder_config)
    report = write_model(head, out, format=layout, encoder=used)
    if json:
        _render.json_out(report.to_json())
    else:
        _render.model_export_summary(report)
