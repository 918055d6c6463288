"""What makes rows and row ids again, as a repair sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ltstore.errors import ConfigError, LtstoreError, StoreBusyError, StoreReadError, StoreWriteError
from ltstore.storage import Location
from ltstore.store.format import SplitRecord
from ltstore.store.store import Store
from ltstore.types import IntArray


class Maker(Protocol):
    """What can make rows and row ids again; `ltstore.workflow` has one."""

    def prepare(
        self, store: Store, label: str, location: Location, record: SplitRecord
    ) -> Callable[[], object]:
        """Open what a split was made from; the call that is returned writes its pending shards and finishes it.

        Raises
        ------
        LtstoreError
            It cannot be had, or is not what the split was made from: says why.
        """

    def insists(self, label: str) -> bool:
        """Whether the user named the source of this split, so that nothing else may take its place."""

    def subset_ids(
        self, store: Store, label: str, name: str, settings: Mapping[str, Any]
    ) -> Sequence[IntArray]:
        """Return the lists of row ids that these settings choose; LtstoreError where they do not say it."""


class NoMaker:
    """Makes nothing: what the store does not hold is lost."""

    def prepare(
        self, store: Store, label: str, location: Location, record: SplitRecord
    ) -> Callable[[], object]:
        """Refuse."""
        raise ConfigError("its source was not to be used")

    def insists(self, label: str) -> bool:
        """Return False."""
        return False

    def subset_ids(
        self, store: Store, label: str, name: str, settings: Mapping[str, Any]
    ) -> Sequence[IntArray]:
        """Refuse."""
        raise ConfigError("nothing makes subsets here")


def is_outage(err: LtstoreError) -> bool:
    """Whether it says nothing of the rows: a full disk, a service that fails, another writer."""
    return isinstance(err, StoreBusyError | StoreReadError | StoreWriteError)
