"""ltstore verify: whether a store is whole."""

from __future__ import annotations

import typer

from ltstore_cli import _render
from ltstore_cli._options import Json, StorePath


def verify(store: StorePath, json: Json = False) -> None:
    """Read every byte of a store and check it against its checksums; exit 1 if anything is wrong.

    Example: `ltstore verify birds.zarr`
    """
    from ltstore.store import verify as verify_store

    with _render.progress("verify", None) as progress:
        report = verify_store(store, progress=progress)
    if json:
        _render.json_out(report.to_json())
    else:
        _render.verify_summary(report, store)
    if not report.ok:
        raise typer.Exit(1)
