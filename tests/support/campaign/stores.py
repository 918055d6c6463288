"""Damaged stores read through the library, under new seals too: a round of store_fuzz."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from support import store_fuzz
from support.campaign.trial import Round

NAMES = {"all as it was": "finished all the same"}


def run(round_: Round) -> None:
    """Run the round of this number."""
    logging.disable(logging.CRITICAL)
    try:
        stores, truths = round_.shop.once("stores", lambda: _make(round_.shop.scratch))
        answer = store_fuzz.one_round(round_.seed, round_.number, stores, truths, round_.shop.scratch)
    finally:
        logging.disable(logging.NOTSET)  # what commands of other kinds warn of is looked at
    round_.counts[NAMES.get(answer, "refused clearly")] += 1


def _make(scratch: Path) -> tuple[list[Path], list[dict[str, Any]]]:
    place = scratch / "stores"
    place.mkdir()
    failure, detail = store_fuzz.in_fork(lambda: str(len(store_fuzz.make_stores(place))), 60)
    assert not failure, detail
    stores = sorted(place.iterdir())
    return stores, [store_fuzz.truth_of(store, scratch) for store in stores]
