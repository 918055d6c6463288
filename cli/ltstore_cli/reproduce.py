"""ltstore reproduce: the whole protocol on a published data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import ENCODERS, PUBLISHED, among
from ltstore_cli._options import EncoderConfig, EncoderDevice, EncoderOptions, Json, parse_encoder_options


def reproduce(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="cifar100-lt, places-lt, imagenet-lt or inat2018.",
            autocompletion=among(*PUBLISHED),
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Directory of the official files, images below it, or CIFAR's tar. Needs --encoder."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="open_clip:ARCH/TAG, timm:ARCH/TAG, onnx:FILE or pixels:SIZE.", autocompletion=among(*ENCODERS)
        ),
    ] = None,
    encoder_config: EncoderConfig = None,
    encoder_option: EncoderOptions = None,
    device: EncoderDevice = "auto",
    store: Annotated[
        str | None,
        typer.Option(help="A store with the official splits train and test, in place of --data and --encoder."),
    ] = None,
    imbalance: Annotated[
        float | None,
        typer.Option(min=1.0, help="Of the cut of cifar100-lt; default 100. Others have their own."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many: 0, 1, ... Default 3, with --quick 1.")
    ] = None,
    heads: Annotated[
        str, typer.Option(metavar="NAME,...", help="Only these heads, and la, which they are compared with.")
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="One seed of la, ce, gda, ridge, ncm and neighbor-gauss.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Directory for store, models, records and results; default DATASET.")
    ] = None,
    json: Json = False,
) -> None:
    """Run the whole protocol on a published data set: every baseline head over seeds, judged on the official test rows.

    Writes results.md, results.json and report.html. The same command again goes on where it was stopped; more
    heads or seeds are added to what is there.

    Example: `ltstore reproduce cifar100-lt --data cifar-100-python --encoder open_clip:ViT-B-32/laion2b_s34b_b79k`
    """
    from ltstore.encode import open_encoder
    from ltstore.workflow import reproduce as run
    from ltstore.workflow.reproduction.baselines import QUICK
    from ltstore.workflow.reproduction.protocol import N_SEEDS

    if store is not None and (data is not None or encoder is not None):
        raise typer.BadParameter(
            "takes the place of --data and --encoder: leave them out", param_hint="--store"
        )
    used = None
    if encoder is not None:
        options = parse_encoder_options(encoder_option)
        used = open_encoder(encoder, device=device, options=options, config=encoder_config)
    result = run(
        dataset,
        out or Path(dataset),
        data=data,
        encoder=used,
        store=store,
        imbalance=imbalance,
        n_seeds=seeds or (1 if quick else N_SEEDS),
        heads=[word.strip() for word in heads.split(",") if word.strip()] or (QUICK if quick else ()),
        ingesting=_render.ingesting,
        announce=_render.note,
    )
    if json:
        _render.json_out(result.to_json())
    else:
        _render.reproduction(result)
