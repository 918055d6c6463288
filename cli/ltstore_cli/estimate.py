"""ltstore estimate: how long, and how much memory, before anything is computed."""

from __future__ import annotations

from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import Device, Json, Split, Subset, parse_bytes


def estimate(
    rows: Annotated[float | None, typer.Option(metavar="N", help="Training rows, e.g. 1e6.")] = None,
    features: Annotated[int | None, typer.Option(metavar="D", min=1, help="Features of the encoder.")] = None,
    classes: Annotated[int | None, typer.Option(metavar="C", min=1)] = None,
    store: Annotated[
        str | None, typer.Option(metavar="STORE", help="Take what is not given from the rows of this store.")
    ] = None,
    split: Split = "train",
    subset: Subset = None,
    imbalance: Annotated[
        float | None, typer.Option(min=1, help="Largest class over smallest, where no store says the sizes.")
    ] = None,
    synthetic: Annotated[
        str, typer.Option(help="Synthetic rows for each real one; fill: up to the largest class.")
    ] = "0",
    grid: Annotated[int, typer.Option(metavar="HEADS", min=1, help="Heads that are trained in one grid.")] = 1,
    passes: Annotated[
        int | None, typer.Option(min=1, help="Passes of a training; default: what eight in ten took.")
    ] = None,
    test_rows: Annotated[
        float | None, typer.Option(metavar="N", help="Rows to evaluate on; default: split test, or N / 10.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float16 or float32: how a store keeps embeddings.")] = "float16",
    precision: Annotated[
        str, typer.Option(help="auto, float32, tf32 or bf16: of the products of a pass.")
    ] = "auto",
    device: Device = "auto",
    images_per_second: Annotated[
        float | None, typer.Option(help="Of an ingest; default: that of the store.")
    ] = None,
    gflops: Annotated[
        float | None, typer.Option(help="Products of another machine, in GFLOP/s; default: measured here.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Of another machine, e.g. 256GB; default: this one's.")
    ] = None,
    json: Json = False,
) -> None:
    """Say how long each step will take, in how much memory and on how much disk.

    Rates of this machine are measured in a second or two; nothing else is computed. Times are from and to, memory is
    at most.

    Example: `ltstore estimate --rows 1e6 --features 768 --classes 1000`
    """
    from ltstore.workflow import estimate as estimated

    try:
        ratio: float | str = float(synthetic)
    except ValueError:
        ratio = synthetic
    found = estimated(
        rows,
        features,
        classes,
        store=store,
        split=split,
        subset=subset,
        imbalance=imbalance,
        synthetic=ratio,
        n_heads=grid,
        passes=passes,
        n_test=test_rows,
        dtype=dtype,
        precision=precision,
        device=device,
        images_per_second=images_per_second,
        gflops=gflops,
        memory_bytes=parse_bytes(memory, "--memory"),
    )
    if json:
        _render.json_out(found.to_json())
    else:
        _render.estimate(found)
