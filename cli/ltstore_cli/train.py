"""ltstore train: a linear head on a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import (
    SAMPLER_NAMES,
    Accept,
    DonorsBy,
    Json,
    MaxRatio,
    PerClass,
    SamplerOptions,
    Split,
    StorePath,
    Subset,
    parse_options,
)


def train(
    store: StorePath,
    out: Annotated[Path, typer.Option(help="Model directory to write.")],
    split: Split = "train",
    subset: Subset = None,
    head: Annotated[
        str,
        typer.Option(
            help="linear (softmax), or a closed form: ncm (nearest class mean), gda (Gaussian), ridge."
        ),
    ] = "linear",
    loss: Annotated[
        str | None,
        typer.Option(
            help="la (default: logit-adjusted by the prior of the rows fed) or ce (plain cross entropy)."
        ),
    ] = None,
    tau: Annotated[float | None, typer.Option(help="Strength of the adjustment; default 1.")] = None,
    posthoc_tau: Annotated[
        float | None, typer.Option(help="Lean to the tail after training; default 0, or what auto chooses.")
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            help=f"Synthetic rows made while training: none, {SAMPLER_NAMES}, or auto (chosen by a backtest)."
        ),
    ] = "none",
    sampler_option: SamplerOptions = None,
    per_class: PerClass = None,
    max_ratio: MaxRatio = None,
    donors_by: DonorsBy = "means",
    accept: Accept = "none",
    synthetic: Annotated[
        str | None, typer.Option(help="Use this set made by `ltstore sample` in place of a sampler.")
    ] = None,
    implicit: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Noise around every row in closed form, as a share of its class's covariance (ISDA); default 0: none.",
        ),
    ] = None,
    l2: Annotated[
        float | None, typer.Option(help="Strength of the penalty; default min(0.01, 1 / classes).")
    ] = None,
    penalty: Annotated[
        str | None,
        typer.Option(help="plain (default) or whitened (in the metric of the within-class covariance)."),
    ] = None,
    max_passes: Annotated[
        int | None, typer.Option(min=1, help="Most passes over the rows; default 200.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Stop when the objective is estimated to be within this share of its minimum."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="auto (default), numba or reference.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the synthetic rows; default 0.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that is there.")] = False,
    json: Json = False,
) -> None:
    """Train a head on real rows, with synthetic rows for the tail if asked, and write a model directory.

    Example: `ltstore train birds.zarr --sampler neighbor-gauss --out models/ng`
    """
    from ltstore.linear import TrainSettings
    from ltstore.workflow import train as train_head

    given = {
        "loss": loss,
        "tau": tau,
        "posthoc_tau": posthoc_tau,
        "implicit": implicit,
        "l2": l2,
        "penalty": penalty,
        "max_passes": max_passes,
        "tolerance": tolerance,
        "backend": backend,
        "seed": seed,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    settings = TrainSettings.from_mapping(chosen) if chosen or head == "linear" else None
    passes = settings.max_passes if settings else None
    with _render.progress("train", passes, "passes") as progress:
        outcome = train_head(
            store,
            split=split,
            subset=subset,
            head=head,
            sampler=sampler,
            sampler_settings=parse_options(sampler_option, "--sampler-option"),
            synthetic=synthetic,
            per_class=per_class,
            max_ratio=max_ratio,
            donors_by=donors_by,
            accept=accept,
            settings=settings,
            out=out,
            force=force,
            progress=progress,
        )
    if json:
        _render.json_out(outcome.to_json() | {"model": str(out)})
    else:
        _render.train_summary(outcome, out)
