"""ltstore subset: long-tailed and validation cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._completion import SUBSET_RULES, among
from ltstore_cli._options import Json, Seed, Split, StorePath


def subset(
    store: StorePath,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the subset.", show_default=False)],
    split: Split = "train",
    rule: Annotated[
        str,
        typer.Option(
            help="exp or step (long-tailed cuts), file (row ids), holdout (stratified).",
            autocompletion=among(*SUBSET_RULES),
        ),
    ] = "exp",
    imbalance: Annotated[
        float, typer.Option(min=1.0, help="Largest over smallest class of exp, step.")
    ] = 100.0,
    fraction: Annotated[float, typer.Option(help="Held-out share of each class of holdout.")] = 0.2,
    of: Annotated[str | None, typer.Option(help="Cut from this subset instead of the whole split.")] = None,
    indices: Annotated[Path | None, typer.Option(help="Row ids for file: .npy or text.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Name a subset of a split by row ids, without copying a row.

    exp and step follow the convention of LDAM-DRW, row for row: they are for balanced collections, and take
    classes in the order of their names, whatever their sizes. holdout writes NAME (held out) and NAME-rest.

    Example: `ltstore subset cifar.zarr lt100 --rule exp --imbalance 100`
    """
    from ltstore.sources import read_indices
    from ltstore.workflow import make_subset, select

    if (indices is not None) != (rule == "file"):
        reason = "needed by --rule file" if rule == "file" else "only for --rule file"
        raise typer.BadParameter(reason, param_hint="--indices")
    written = make_subset(
        store,
        name,
        split=split,
        rule=rule,
        imbalance=imbalance,
        fraction=fraction,
        of=of,
        indices=None if indices is None else read_indices(indices),
        seed=seed,
    )
    results = []
    for subset_name, row_ids in written.items():
        counts = select(store, split, subset_name).counts
        filled = counts[counts > 0]
        results.append(
            {
                "split": split,
                "subset": subset_name,
                "rows": len(row_ids),
                "classes": len(filled),
                "empty_classes": int((counts == 0).sum()),
                "largest": int(filled.max(initial=0)),
                "smallest": int(filled.min(initial=counts.max(initial=0))),
            }
        )
    if json:
        _render.json_out(results)
    else:
        _render.records(results, left=("split", "subset"))
