"""ltstore sample: synthetic embeddings for tail classes."""

from __future__ import annotations

from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import SAMPLERS, among
from ltstore_cli._options import (
    SAMPLER_NAMES,
    Accept,
    DonorsBy,
    DrawWorkers,
    Json,
    MaxRatio,
    PerClass,
    SamplerOptions,
    Seed,
    Split,
    StorePath,
    Subset,
    number_or_auto,
    parse_options,
)


def sample(
    store: StorePath,
    name: Annotated[str, typer.Option(help="Name of the set of synthetic rows.")],
    sampler: Annotated[
        str, typer.Option(help=f"{SAMPLER_NAMES}.", autocompletion=among(*SAMPLERS))
    ] = "neighbor-gauss",
    sampler_option: SamplerOptions = None,
    split: Split = "train",
    subset: Subset = None,
    per_class: PerClass = None,
    max_ratio: MaxRatio = None,
    donors_by: DonorsBy = "means",
    accept: Accept = "none",
    quality: Annotated[
        bool,
        typer.Option(help="Measure the rows against real ones (seconds); reports show it too."),
    ] = True,
    dtype: Annotated[str, typer.Option(help="Type on disk: float16 or float32.")] = "float16",
    seed: Seed = 0,
    workers: DrawWorkers = "auto",
    json: Json = False,
) -> None:
    """Write synthetic rows, each with its parent row and donor classes, beside the real ones.

    Training can also make them on the way (`ltstore train --sampler`): this is for looking at them, for
    export, and for training many heads on the same rows.

    Example: `ltstore sample birds.zarr --name ng --sampler neighbor-gauss`
    """
    from ltstore.workflow import sample as sample_rows

    with _render.progress("sample", None) as progress:
        result = sample_rows(
            store,
            name=name,
            sampler=sampler,
            settings=parse_options(sampler_option, "--sampler-option"),
            split=split,
            subset=subset,
            per_class=per_class,
            max_ratio=max_ratio,
            donors_by=donors_by,
            accept=accept,
            quality=quality,
            seed=seed,
            dtype=dtype,
            n_workers=number_or_auto(workers, "--workers"),
            planned=progress.expect,
            progress=progress,
        )
    if json:
        _render.json_out(result.to_json())
        return
    _render.pairs(
        [
            ("synthetic rows", f"{result.n_rows:,} in {result.n_classes} classes"),
            ("name", result.name),
            ("sampler", f"{result.sampler}: {_render.settings(result.settings)}"),
            ("donors by", result.donors_by),
            ("seconds", f"{result.seconds:.2f}"),
        ]
    )
    if result.acceptance is not None:
        _render.acceptance(result.acceptance)
    if result.quality is not None:
        _render.quality(result.quality)
    if result.empty_classes:
        _render.warning(f"{result.empty_classes} classes have no real row and got no synthetic one")
    where = f"--split {split}" + (f" --subset {subset}" if subset else "")
    _render.note(f"next: ltstore train {store} {where} --synthetic {name} --out MODEL")
