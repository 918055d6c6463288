"""ltstore train: a linear head on a store."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from ltstore_cli import _render
from ltstore_cli._completion import HEADS, LOSSES, SAMPLERS, among
from ltstore_cli._options import (
    SAMPLER_NAMES,
    Accept,
    Address,
    DonorsBy,
    EngineName,
    Json,
    MaxRatio,
    PerClass,
    SamplerOptions,
    Split,
    StorePath,
    Subset,
    number_or_auto,
    number_or_name,
    parse_grid,
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
            help="linear (softmax), cosine (of cosines), a closed form: ncm (nearest class mean), gda, ridge; or "
            "zero-shot (of `ltstore text`).",
            autocompletion=among(*HEADS),
        ),
    ] = "linear",
    loss: Annotated[
        str | None,
        typer.Option(
            help="la (default: logit-adjusted by the prior of the rows fed) or ce (plain cross entropy).",
            autocompletion=among(*LOSSES),
        ),
    ] = None,
    tau: Annotated[float | None, typer.Option(help="Strength of the adjustment; default 1.")] = None,
    posthoc_tau: Annotated[
        float | None, typer.Option(help="Lean to the tail after training; default 0, or what auto chooses.")
    ] = None,
    smoothing: Annotated[
        float | None, typer.Option(help="Share of every target spread over all classes; default 0.")
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option(
            help="Weight of a row by its class's size: none (default), balanced (1 / rows) or effective-number."
        ),
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Of effective-number; default 0.999.")] = None,
    row_weights: Annotated[
        Path | None, typer.Option(help="File (npy) with a weight for each row of the selection.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Margin of the smallest class, others by rows^-1/4 (LDAM); default 0: none."),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Of the cosine head's logits; default 25.")] = None,
    sampler: Annotated[
        str,
        typer.Option(
            help=f"Synthetic rows made while training: none, {SAMPLER_NAMES}, or auto (chosen by a backtest).",
            autocompletion=among("none", *SAMPLERS, "auto"),
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
    init: Annotated[
        str | None,
        typer.Option(help="Where to begin: zero (default), or the closed form means, gda or ridge."),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="lbfgs (default: whole passes), or minibatches by sgd or adam.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of minibatches; default 0.05 (sgd), 0.005 (adam).")
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="Of minibatches; default 0.9.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes of a minibatch solver; default 30.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows of a minibatch; default 512.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Of the learning rate: cosine (default, falls to 0) or constant.")
    ] = None,
    holdout: Annotated[
        str | None,
        typer.Option(
            help="Judge every pass on rows not trained on: a share of each class (0.2), a subset or a split."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="last (default), or best: the pass with the best balanced holdout accuracy."),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE",
            help="Train a head for every combination in the same passes, keep the best on the holdout; repeat.",
        ),
    ] = None,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit",
            help="When a holdout that is a share has chosen, put it back and train on from there on all rows.",
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Directory to put the run away in; the same command goes on from there."),
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Passes between two checkpoints; default 10, or a minute.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Threads that share every pass, or auto: one a core; default 1. With --engine processes or ray: "
            "workers, default auto.",
        ),
    ] = None,
    engine: EngineName = "local",
    address: Address = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto (default: a GPU where it pays, or one of each worker's own), cpu, cuda or cuda:N."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the products: auto (default; float32, or bf16 on a CPU where it pays), float32, bf16 or tf32."
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="auto (default), numba or reference; triton on a GPU.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of synthetic rows, holdout and minibatches; default 0.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that is there.")] = False,
    json: Json = False,
) -> None:
    """Train a head on real rows, with synthetic rows for the tail if asked, and write a model directory.

    Examples: `ltstore train birds.zarr --sampler neighbor-gauss --out models/ng`;
    `ltstore train birds.zarr --holdout 0.2 --grid l2=1e-3,1e-2 --grid tau=0.5,1,1.5 --refit --out models/best`
    """
    from ltstore.engine import open_engine
    from ltstore.linear import Checkpointing, TrainSettings
    from ltstore.workflow import train as train_head

    minibatch = {
        "learning_rate": learning_rate,
        "momentum": momentum,
        "epochs": epochs,
        "batch_size": batch_size,
        "schedule": schedule,
    }
    given = {
        "head": "cosine" if head == "cosine" else None,
        "scale": scale,
        "loss": loss,
        "tau": tau,
        "posthoc_tau": posthoc_tau,
        "smoothing": smoothing,
        "class_weights": class_weights,
        "beta": beta,
        "margin": margin,
        "implicit": implicit,
        "l2": l2,
        "penalty": penalty,
        "init": init,
        "solver": solver,
        "max_passes": max_passes,
        "tolerance": tolerance,
        "minibatch": _given(minibatch) or None,
        "keep": keep,
        "device": device,
        "precision": precision,
        "backend": backend,
        "seed": seed,
    }
    chosen = _given(given)
    settings = TrainSettings.from_mapping(chosen) if chosen or head == "linear" else None
    if checkpoint is None and checkpoint_every is not None:
        raise typer.BadParameter("needs --checkpoint DIR", param_hint="--checkpoint-every")
    how = {} if checkpoint_every is None else {"every_passes": checkpoint_every}
    number = None if workers is None else number_or_auto(workers, "--workers")
    n_passes = settings.n_passes * (1 + refit) if settings else None
    with ExitStack() as stack:
        crew = stack.enter_context(
            open_engine(engine, number or "auto", address=address, use_gpus=device != "cpu")
        )
        progress, on_pass = stack.enter_context(_render.training(n_passes))
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
            row_weights=None if row_weights is None else _read_weights(row_weights),
            holdout=None if holdout is None else number_or_name(holdout),
            grid=parse_grid(grid) or None,
            refit=refit,
            checkpoint=None if checkpoint is None else Checkpointing(directory=checkpoint, **how),
            engine=crew,
            n_workers=1 if crew or number is None else number,
            out=out,
            force=force,
            progress=progress,
            on_pass=on_pass,
        )
    if json:
        _render.json_out(outcome.to_json() | {"model": str(out)})
    else:
        _render.train_summary(outcome, out)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _read_weights(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError) as err:
        raise typer.BadParameter(f"cannot read {path}: {err}", param_hint="--row-weights") from err
