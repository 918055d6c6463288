"""Mend the subsets of a split: their bits, by the settings that chose them, or by keeping them aside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from ltstore.errors import LtstoreError, StoreFormatError
from ltstore.storage import Location
from ltstore.store import quarantine, subsets
from ltstore.store.findings import Repair
from ltstore.store.format import GROUP_FILE, read_json, seal_holds
from ltstore.store.repairing.maker import Maker, is_outage
from ltstore.store.repairing.restoring import FLIPPED, locked, restore_group, restore_ids, restore_record
from ltstore.store.store import Store
from ltstore.types import IntArray


class SubsetRepair:
    """Mends the subsets of a complete split of `n_rows` rows; what it does is appended to `done`."""

    def __init__(
        self, store: Store, label: str, location: Location, n_rows: int, maker: Maker, done: list[Repair]
    ) -> None:
        self._store = store
        self._label = label
        self._location = location
        self._n_rows = n_rows
        self._maker = maker
        self._done = done

    def _note(self, action: str, array: str, message: str) -> None:
        self._done.append(Repair(split=self._label, array=array, action=action, message=message))

    def run(self) -> None:
        """Mend all of them."""
        directory = self._location / "subsets"
        names = subsets.directories(self._location)
        if not names:
            return
        with locked(directory):
            restore_group(directory / GROUP_FILE, self._label, "subsets", self._done)
            damaged = [name for name in names if not self._is_whole(name)]
            for name in names:
                if restore_record(directory / name / GROUP_FILE):
                    self._note("restored", f"subsets/{name}", f"its zarr.json: {FLIPPED}")
            for name in [name for name in damaged for _ in range(2)]:  # one may be cut from another
                if not self._is_whole(name):
                    self._make_subset(name)
            for name in damaged:
                if not self._is_whole(name):
                    self._set_aside(name)

    def _is_whole(self, name: str) -> bool:
        """Whether a subset can be read. Its ids may be whole and its settings not: then it stays as it is."""
        try:
            subsets.read(self._location, name, self._n_rows)
        except StoreFormatError:
            return False
        except LtstoreError as err:
            if is_outage(err):
                raise
            return False
        return True

    def _make_subset(self, name: str) -> None:
        location = self._location / "subsets" / name
        try:
            document = read_json(location / GROUP_FILE)
            if not seal_holds(document):
                return
            record = subsets.read_record(self._location, name)
            ids = self._ids_left(location, record.ids_digest)
            if ids is not None:
                subsets.write_ids(location, ids, document)
                self._note(
                    "restored", f"subsets/{name}", "its row ids are whole but for a checksum or one flipped bit"
                )
                return
            candidates = self._maker.subset_ids(self._store, self._label, name, record.settings)
        except FileNotFoundError:
            return
        except (LtstoreError, TypeError, ValueError) as err:  # settings that some other program wrote
            if isinstance(err, LtstoreError) and is_outage(err):
                raise
            return
        for candidate in candidates:
            ids = np.asarray(candidate, np.int64)
            if subsets.ids_digest(ids) == record.ids_digest:
                subsets.write_ids(location, ids, document)
                self._note("re-made", f"subsets/{name}", "its settings chose the same rows again, bit for bit")
                return

    def _ids_left(self, location: Location, digest: str) -> IntArray | None:
        with suppress(FileNotFoundError):
            return restore_ids((location / "c" / "0").view(), digest)
        return None

    def _set_aside(self, name: str) -> None:
        location = self._location / "subsets" / name
        places = dict(_files_below(location))
        kept = quarantine.put_files(self._location, f"subset-{name}", places, ["its row ids are damaged"])
        location.remove_group(GROUP_FILE)
        message = (
            f"it could not be made again; it is kept as it was found in {self._location / 'quarantine' / kept}"
        )
        self._note("quarantined", f"subsets/{name}", message)


def _files_below(location: Location, prefix: str = "") -> Iterator[tuple[str, Location]]:
    for name in location.child_names():
        if (location / name).exists():
            yield prefix + name, location / name
        yield from _files_below(location / name, f"{prefix}{name}/")
