"""ltstore verify: whether a store is whole."""

from __future__ import annotations

import typer

from ltstore_cli import _render
from ltstore_cli._options import Json, StorePath


def verify(store: StorePath, json: Json = False) -> None:
    """Read every byte of a store and check it against its checksums; exit 1 if anything is wrong.

    Example: `ltstore verify birds.zarr`
    """
    from ltstore.store import open_store
    from ltstore.store import verify as verify_store

    opened = open_store(store)
    splits = [opened.split(name, allow_incomplete=True) for name in opened.splits]
    splits += [opened.synthetic(name, allow_incomplete=True) for name in opened.synthetic_names]
    with _render.progress("verify", sum(split.n_rows for split in splits)) as progress:
        report = verify_store(store, progress=progress)
    if json:
        _render.json_out(report.to_json())
    else:
        _render.verify_summary(report, store)
    if not report.ok:
        raise typer.Exit(1)
