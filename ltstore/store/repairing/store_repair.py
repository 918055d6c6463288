"""Make a damaged store whole: restore what it knows twice, keep the rest aside, re-make that or say what is lost.

Here a whole store; `split_repair` has the steps of one split, `subset_repair` those of its subsets.
"""

from __future__ import annotations

import time
from typing import Any

from ltstore.errors import LtstoreError, StoreFormatError
from ltstore.storage import Location, Place, open_location
from ltstore.store.check import check_split, check_splits, join_reports, split_locations
from ltstore.store.findings import Problem, Repair, VerifyReport
from ltstore.store.format import GROUP_FILE, LIMIT_ROOT_BYTES, read_attribute, read_json, seal_holds
from ltstore.store.generation import GENERATIONS, relink
from ltstore.store.repairing.maker import Maker, NoMaker
from ltstore.store.repairing.restoring import FLIPPED, restore_group, restore_record
from ltstore.store.repairing.split_repair import SplitRepair
from ltstore.store.store import open_store
from ltstore.types import Progress, no_progress


def repair(place: Place, *, maker: Maker | None = None, progress: Progress = no_progress) -> VerifyReport:
    """Make a store whole; the same call again goes on where a killed one stopped.

    Nothing that is damaged is thrown away: what cannot be restored byte for byte is copied to the split's quarantine
    first. Whole shards, and whole rows of damaged ones, stay as they are.

    Parameters
    ----------
    place : path, URL or Location
    maker : Maker, optional
        Makes rows again from their source. Default: none, so that rows whose embedding is damaged are lost.
    progress : Progress
        Of the checks: called after each shard with its rows.

    Returns
    -------
    VerifyReport
        Of the store as it is afterwards; `repaired` says what was done.

    Raises
    ------
    StoreNotFoundError, StoreFormatError
        There is no store at `place` that could be looked at.

    Notes
    -----
    Reads the store as `verify` does, and splits that were touched once more. Memory: a few damaged shards.
    """
    began = time.perf_counter()
    done: list[Repair] = []
    _restore_root(open_location(place) / GROUP_FILE, done)
    store = open_store(place)
    found = check_splits(store, progress)
    done += [
        Repair(split="", array="", action="removed", message=f"{name} was left by a writer that was killed")
        for name in store.location.remove_leftovers()
    ]
    splits = list(split_locations(store))
    if any(label.startswith("synthetic/") for label, _ in splits):
        restore_group(store.location / "synthetic" / GROUP_FILE, "", "", done)
    failures, notes = [], []
    for label, location in splits:
        n_before = len(done)
        mending = SplitRepair(store, label, location, maker or NoMaker(), done)
        try:
            mending.run(found[label].problems)
        except LtstoreError as err:
            failures.append(Problem(split=label, array="", message=f"not repaired: {err}"))
        if found[label].problems or len(done) > n_before:
            found[label] = check_split(store, label, location, progress)
        notes += mending.notes
    for label, location in splits:
        if f"/{GENERATIONS}/" not in label and (again := relink(location)):
            message = "it follows the rows before it as they are after the repair"
            names = [f"{label}/{GENERATIONS}/{name}" for name in again]
            done += [Repair(split=name, array="", action="restored", message=message) for name in names]
            found[label] = check_split(store, label, location)
    report = join_reports(store, found)
    report.problems += failures
    report.repaired = done
    report.notes += notes
    report.seconds = time.perf_counter() - began
    return report


def _restore_root(location: Location, done: list[Repair]) -> None:
    """Flip back a bit of the store's zarr.json, unless it may be a class that was renamed by hand."""
    try:
        document = read_json(location, LIMIT_ROOT_BYTES)
        if seal_holds(document):
            return
        names = read_attribute(location, root=True).get("class_names")
    except FileNotFoundError:
        return
    except StoreFormatError:
        names = None

    def is_written(candidate: dict[str, Any]) -> bool:
        attributes: dict[str, Any] = candidate["attributes"]["ltstore"]
        return names is None or attributes.get("class_names") == names

    if restore_record(location, is_written):
        done.append(Repair(split="", array="", action="restored", message=f"{location}: {FLIPPED}"))
