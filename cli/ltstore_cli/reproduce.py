"""ltstore reproduce: the whole protocol on a published data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import ENCODERS, PUBLISHED, among
from ltstore_cli._options import (
    Address,
    BatchSize,
    EncoderConfig,
    EncoderDevice,
    EncoderOptions,
    EngineName,
    Json,
    Workers,
    number_or_auto,
    parse_encoder_options,
)


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
    batch_size: BatchSize = "auto",
    engine: EngineName = "local",
    workers: Workers = "auto",
    address: Address = None,
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
    from ltstore.engine import open_engine
    from ltstore.workflow import reproduce as run
    from ltstore.workflow.encoders import may_use_gpus
    from ltstore.workflow.reproduction.baselines import QUICK
    from ltstore.workflow.reproduction.protocol import N_SEEDS

    batch, n_workers = number_or_auto(batch_size, "--batch-size"), number_or_auto(workers, "--workers")
    encoding = {
        "--data": data is not None,
        "--encoder": encoder is not None,
        "--engine": engine != "local",
        "--workers": workers != "auto",
        "--batch-size": batch_size != "auto",
        "--address": address is not None,
    }
    if store is not None and (idle := [flag for flag, given in encoding.items() if given]):
        raise typer.BadParameter(
            f"holds embeddings, nothing is encoded: leave {', '.join(idle)} out", param_hint="--store"
        )
    used = None
    if encoder is not None:
        options = parse_encoder_options(encoder_option)
        used = open_encoder(encoder, device=device, options=options, config=encoder_config)
    use_gpus = used is not None and may_use_gpus(used, engine, device)
    with open_engine(engine, n_workers, address=address, use_gpus=use_gpus) as crew:
        result = run(
            dataset,
            out or Path(dataset),
            data=data,
            encoder=used,
            store=store,
            batch_size=batch,
            n_workers=n_workers if crew is None else "auto",
            engine=crew,
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
