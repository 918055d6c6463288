"""ltstore verify: whether a store is whole, and making it so."""

from __future__ import annotations

from typing import Annotated

import typer

from ltstore_cli import _render
from ltstore_cli._options import Address, BatchSize, Device, EngineName, Json, StorePath, number_or_auto


def verify(
    store: StorePath,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make it whole: re-make what can be re-made, quarantine the rest.")
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SPLIT=]PATH",
            help="Where the source of a split lies now, if it moved since ingest or import; repeat for more splits.",
        ),
    ] = None,
    no_source: Annotated[
        bool, typer.Option("--no-source", help="Look for no source: damaged rows are lost.")
    ] = False,
    encoder: Annotated[str | None, typer.Option(help="Encoder, if it moved since ingest.")] = None,
    batch_size: BatchSize = "auto",
    engine: EngineName = "local",
    workers: Annotated[
        str,
        typer.Option(
            help="Workers that look at the shards, or auto: with --engine processes or ray one a core, else one. "
            "With --repair: threads that decode images."
        ),
    ] = "auto",
    address: Address = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Read every byte of a store and check it against its checksums; exit 1 if anything is wrong.

    With --repair, what the store knows twice is restored, and other damaged rows are made again from the source that
    was recorded; where that is gone they keep their place with the status LOST. Rows that are whole stay as they are,
    damaged files are kept in SPLIT/quarantine, and exit 0 says that the store is whole. The same command again goes on
    where a killed one stopped.

    Example: `ltstore verify birds.zarr --repair`
    """
    from ltstore.engine import LocalEngine, open_engine
    from ltstore.store import verify as verify_store
    from ltstore.workflow import repair as repair_store

    if not repair and (source or no_source or encoder is not None):
        raise typer.BadParameter("only with --repair", param_hint="--source, --no-source, --encoder")
    if repair and engine != "local":
        raise typer.BadParameter("a repair is done by this process", param_hint="--engine")
    batch, n_workers = number_or_auto(batch_size, "--batch-size"), number_or_auto(workers, "--workers")
    with (
        open_engine(engine, n_workers, address=address) as crew,
        _render.progress("repair" if repair else "verify", None) as progress,
    ):
        if repair:
            report = repair_store(
                store,
                sources=_named_sources(store, source or []),
                use_source=not no_source,
                encoder=encoder,
                device=device,
                batch_size=batch,
                n_workers=n_workers,
                progress=progress,
            )
        else:
            threads = None if n_workers == "auto" else LocalEngine(n_workers)
            report = verify_store(store, engine=crew or threads, progress=progress)
    if json:
        _render.json_out(report.to_json())
    else:
        _render.verify_summary(report, store, repair=repair)
    if not report.ok:
        raise typer.Exit(1)


def _named_sources(store: str, words: list[str]) -> dict[str, str]:
    """Turn ["train=/a", "test=/b"] or ["/a"] into paths by split; "" is any split."""
    from ltstore.store import open_store

    splits = open_store(store).splits if words else ()
    named: dict[str, str] = {}
    for word in words:
        split, equals, path = word.partition("=")
        key, value = (split, path) if equals and split in splits else ("", word)
        if key in named:
            raise typer.BadParameter(f"{word!r} is the second for {key or 'all splits'}", param_hint="--source")
        named[key] = value
    return named
