"""ltstore info: what is inside a store."""

from __future__ import annotations

from ltstore_cli import _render
from ltstore_cli._options import Json, StorePath


def info(store: StorePath, json: Json = False) -> None:
    """Show what a store holds: splits, rows, failures, subsets, indexes, synthetic rows, encoder.

    Example: `ltstore info birds.zarr`
    """
    from ltstore.encode import usage_of
    from ltstore.store import open_store, store_info
    from ltstore.workflow.neighborhood import stored_indexes

    facts = store_info(store) | {"index_reports": stored_indexes(open_store(store))}
    decoding = facts["encoder"]["preprocessing"].get("decoding", "full")
    used = {name: usage_of(split.get("timings", {}), decoding) for name, split in facts["splits"].items()}
    if json:
        _render.json_out(facts)
    else:
        _render.store_facts(facts)
        _render.limits({name: found for name, found in used.items() if found is not None})
